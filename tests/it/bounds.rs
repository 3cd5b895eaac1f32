//! What callers can make the host hold: replies that nobody reads, events that wait. Each has a bound that is a setting.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Caller, Gate, TestHost, eventually};

/// A quarter of the smallest bound that can be set.
const BYTES: usize = 16 << 20;

fn large_reply() -> String {
    json!({"do": [{"reply-bytes": BYTES}]}).to_string()
}

fn settings() -> Value {
    json!({"memoryMb": 512, "concurrency": 1})
}

#[tokio::test]
async fn replies_that_nobody_reads_are_bounded_and_their_connections_closed() {
    let host = TestHost::builder().flag("--replies-memory-max-mb=64").flag("--write-timeout-ms=2000").start().await;
    let probe = host.deploy("probe", "guest-probe", settings()).await;
    let mut silent = Vec::new();
    for caller in 0..4 {
        let mut connection = Caller::connect_narrowly(&host.data).await;
        connection.send("probe", &format!("silent-{caller}"), &large_reply()).await;
        silent.push(connection);
    }
    eventually("their answers", async || match host.invocations().await.len() {
        4 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let refused = probe.invoke(large_reply()).await;
    assert!(refused.problem(503, "host-full").contains("replies wait for their callers"));
    assert_eq!(probe.script(json!(["count"])).await.status, 200, "small replies are not counted");
    // Their connections are closed, and so there is room again.
    let reply = eventually("room for a reply", async || {
        let reply = probe.invoke(large_reply()).await;
        if reply.status == 200 { Ok(reply) } else { Err(format!("{}", reply.status)) }
    })
    .await;
    assert_eq!(reply.body.len(), BYTES);
    eventually("the end of all of them", async || match host.metric("dormouse_reply_bytes").await {
        0.0 => Ok(()),
        bytes => Err(bytes.to_string()),
    })
    .await;
    for mut connection in silent {
        assert!(connection.read_to_close().await.len() < BYTES, "the rest was given up");
    }
}

#[tokio::test]
async fn a_caller_that_reads_slowly_gets_everything() {
    let host = TestHost::builder().flag("--write-timeout-ms=500").start().await;
    host.deploy("probe", "guest-probe", settings()).await;
    let mut connection = Caller::connect(&host.data).await;
    connection.send("probe", "slow", &large_reply()).await;
    let mut read = 0;
    while read < BYTES {
        // Longer in all than the bound, and shorter each time.
        tokio::time::sleep(Duration::from_millis(50)).await;
        read += connection.read_some(1 << 20).await;
    }
}

#[tokio::test]
async fn events_count_until_their_calls_have_ended() {
    let host = TestHost::builder().flag("--events-memory-max-mb=64").flag("--event-bytes-max=33554432").start().await;
    let settings =
        json!({"memoryMb": 512, "maxInstances": 1, "queueDepth": 100, "allowedOutboundHosts": ["127.0.0.1"]});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    let gate = Gate::closed().await;
    let first = probe.script_in_background(json!([gate.step()]));
    let held = gate.arrival().await;
    let event = json!({"do": ["count"]}).to_string();
    let event = format!("{event}{}", " ".repeat(BYTES - event.len()));
    let callers: Vec<_> = (0..6).map(|_| probe.request(event.clone()).send()).map(tokio::task::spawn).collect();
    let waiting = async || host.metric("dormouse_waiting_requests").await;
    eventually("four that wait", async || match waiting().await {
        4.0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    // The others would have come within this time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(waiting().await, 4.0);
    held.release().await;
    first.await.unwrap().results();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_takes_all_its_connections_keeps_no_operator_out_and_gets_them_back_when_its_heads_are_late() {
    let host = TestHost::builder().flag("--connections-max=20").flag("--head-timeout-ms=1000").start().await;
    host.deploy("probe", "guest-probe", settings()).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut half = Caller::connect(&host.data).await;
        half.write("POST /invoke/probe HT").await;
        silent.push(half);
    }
    let mut refused = Caller::connect(&host.data).await;
    assert!(refused.read_to_close().await.starts_with("HTTP/1.1 503 "), "half of the connections is its share");
    assert_eq!(host.get("/v1/functions").await.status, 200);
    // The first heads are late.
    for mut half in silent {
        half.read_to_close().await;
    }
    assert_eq!(host.function("probe").invoke(json!({"do": ["count"]}).to_string()).await.status, 200);
}

#[tokio::test]
async fn connections_are_bounded_by_the_files_that_the_host_may_open() {
    // The kernel would refuse it more than 64; operators get in nevertheless.
    let host = TestHost::builder().files_max(64).start().await;
    let mut connections = Vec::new();
    for _ in 0..120 {
        connections.push(Caller::connect(&host.data).await);
    }
    assert_eq!(host.get("/v1/functions").await.status, 200);
    assert!(host.log().contains("connections_max="), "{}", host.log());
    assert!(!host.log().contains("cannot accept"), "{}", host.log());
}
