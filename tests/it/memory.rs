//! The host's memory is the host's: guests that grow wait, are refused or end, and the host lives.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{TestHost, TestServer, eventually};
use tests::text::Small;

/// What a host may have in these tests: room for a host and two of the guests.
const BOUND_MB: u64 = 500;
/// How far it may be above that: what guests touch on all cores until somebody looks and one of them is ended.
const OVERSHOOT_MB: u64 = 250;

async fn host() -> TestHost {
    TestHost::builder().flag(&format!("--memory-max-mb={BOUND_MB}")).start().await
}

/// The most memory that the host ever had.
fn peak_mb(host: &TestHost) -> u64 {
    host.memory_kib("VmHWM") >> 10
}

fn settings(more: &Value) -> Value {
    let mut settings = json!({"memoryMb": 256, "concurrency": 1});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

#[tokio::test]
async fn guests_that_grow_together_stay_within_the_hosts_memory() {
    let host = host().await;
    let probe = host.deploy("probe", "guest-probe", settings(&json!({}))).await;
    let neighbour = host.deploy("neighbour", "guest-probe", json!({})).await;
    let hoarders = join_all((0..10).map(|_| probe.script(json!([{"grow-mb": 150}, {"sleep-ms": 1000}]))));
    let mut served = 0;
    for reply in hoarders.await {
        if reply.status == 200 {
            served += 1;
        } else {
            let detail = reply.problem(503, "host-full");
            assert!(detail.contains("no memory left"), "{detail}");
        }
    }
    assert!((1..10).contains(&served), "{served} of 10 found room");
    assert!(peak_mb(&host) < BOUND_MB + OVERSHOOT_MB, "{} MB", peak_mb(&host));
    assert_eq!(neighbour.script(json!(["count"])).await.status, 200);
    assert!(host.metric("dormouse_instance_crashes_total{trap=\"host-out-of-memory\"}").await >= 1.0);
}

#[tokio::test]
async fn parked_instances_make_room_for_one_that_grows_and_are_asked_first() {
    let hooks = TestServer::start("", Duration::ZERO).await;
    let host = host().await;
    let environment = json!({"environment": {"HOOK_URL": format!("http://{}/", hooks.address)}, "allowedOutboundHosts": ["127.0.0.1"]});
    for name in ["first", "second"] {
        let parked = host.deploy(name, "guest-probe", settings(&environment)).await;
        parked.script(json!([{"grow-mb": 150}])).await.results();
        parked.reaches("parked").await;
    }
    let growing = host.deploy("growing", "guest-probe", settings(&json!({}))).await;
    growing.script(json!([{"grow-mb": 200}])).await.results();
    eventually("a pre-stop for the oldest one", async || {
        let stopped = host.metric("dormouse_instance_stops_total{reason=\"evicted\"}").await;
        let asked = hooks.received().iter().filter(|hook| hook.body.contains("pre-stop")).count();
        if stopped >= 1.0 && asked as f64 == stopped {
            Ok(())
        } else {
            Err(format!("{stopped} stopped, {asked} asked"))
        }
    })
    .await;
    assert!(peak_mb(&host) < BOUND_MB + OVERSHOOT_MB, "{} MB", peak_mb(&host));
}

#[tokio::test]
async fn memory_that_is_touched_long_after_it_was_granted_is_bounded_too() {
    // It grows by 200 MB, computes until all of them have done so, and only then writes to each page.
    let late = Small {
        body: "
            (drop (memory.grow (i32.const 3200)))
            (loop $wait
                (local.set $seen (i64.add (local.get $seen) (i64.const 1)))
                (br_if $wait (i64.lt_u (local.get $seen) (i64.const 200000000))))
            (loop $touch
                (i32.store8 (i32.add (local.get $at) (i32.const 65536)) (i32.const 1))
                (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                (br_if $touch (i32.lt_u (local.get $at) (i32.const 209715200))))",
        ..Small::PLAIN
    };
    let host = host().await;
    assert_eq!(host.put_code("late", late.component(), &settings(&json!({}))).await.status, 201);
    let late = host.function("late");
    let replies = join_all((0..8).map(|_| late.invoke(""))).await;
    let ended: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    let full = ended.len();
    for reply in ended {
        reply.problem(503, "host-full");
    }
    assert!((1..8).contains(&full), "{full} of 8 were ended");
    assert!(peak_mb(&host) < BOUND_MB + OVERSHOOT_MB, "{} MB", peak_mb(&host));
    assert_eq!(late.invoke("").await.status, 200, "there is room again");
}

#[tokio::test]
async fn a_pre_stop_that_hangs_keeps_its_memory_from_nobody_for_long() {
    let host = host().await;
    let hangs = json!({
        "environment": {"PRE_STOP": r#"{"do": [{"sleep-ms": 80000}]}"#},
        "lifecycle": {"preStop": {"timeoutMs": 90_000}},
    });
    for name in ["first", "second"] {
        let parked = host.deploy(name, "guest-probe", settings(&hangs)).await;
        parked.script(json!([{"grow-mb": 150}])).await.results();
        parked.reaches("parked").await;
    }
    let growing = host.deploy("growing", "guest-probe", settings(&json!({"timeoutMs": 20_000}))).await;
    growing.script(json!([{"grow-mb": 200}])).await.results();
    assert_eq!(host.function("second").states().await, ["parked"], "one was enough");
}

#[tokio::test]
async fn instances_that_linger_after_their_last_request_make_room_too() {
    let host = host().await;
    let lingers = settings(&json!({"freezeAfterMs": 60_000}));
    for name in ["first", "second"] {
        let idle = host.deploy(name, "guest-probe", lingers.clone()).await;
        idle.script(json!([{"grow-mb": 150}])).await.results();
    }
    let growing = host.deploy("growing", "guest-probe", settings(&json!({}))).await;
    growing.script(json!([{"grow-mb": 200}])).await.results();
}
