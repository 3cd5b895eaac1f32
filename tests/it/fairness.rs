//! Functions that compute hold up neither those that do not nor each other; `pool/compute.rs` sees to it.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Reply, TestFunction, TestHost};

/// How many instances compute at the same time.
const CROWD: usize = 64;

/// Some tens of milliseconds: many slices of the epoch.
fn computation() -> Value {
    json!([{"fib": 34}])
}

/// A host on which a function computes in a crowd of instances, each woken once before.
async fn crowded_host() -> (TestHost, TestFunction) {
    let host = TestHost::start().await;
    let crowd = host.deploy("crowd", "guest-probe", json!({"maxInstances": CROWD, "freezeAfterMs": 0})).await;
    let woken = join_all((0..CROWD).map(|_| crowd.script(json!([{"sleep-ms": 300}])))).await;
    assert!(woken.iter().all(|reply| reply.status == 200));
    (host, crowd)
}

/// Lets the crowd compute; returns how many of its requests were still under way when the neighbour's were all answered.
async fn crowd_outlasts(crowd: &TestFunction, neighbour: impl Future<Output = ()>) -> usize {
    let mut computing: Vec<_> = (0..CROWD).map(|_| crowd.script_in_background(computation())).collect();
    crowd.has_in_flight(CROWD as u64).await;
    neighbour.await;
    let under_way = computing.iter().filter(|request| !request.is_finished()).count();
    let replies = join_all(&mut computing).await;
    assert!(replies.into_iter().all(|reply| reply.expect("it is answered").status == 200));
    under_way
}

#[tokio::test]
async fn a_function_that_computes_in_many_instances_does_not_hold_up_its_neighbours() {
    let (host, crowd) = crowded_host().await;
    let neighbour = host.deploy("neighbour", "guest-probe", json!({})).await;
    neighbour.script(json!([])).await;
    // In one queue with the crowd, each of these would wait for a slice of half of its instances.
    let requests = async {
        for _ in 0..100 {
            assert_eq!(neighbour.script(json!([])).await.status, 200);
        }
    };
    let under_way = crowd_outlasts(&crowd, requests).await;
    assert!(under_way > CROWD / 2, "{under_way} of {CROWD}");
}

#[tokio::test]
async fn functions_that_compute_take_turns_however_many_instances_each_has() {
    let (host, crowd) = crowded_host().await;
    let neighbour = host.deploy("neighbour", "guest-probe", json!({})).await;
    let (mut reply, expected): (Option<Reply>, _) = (None, neighbour.script(computation()).await.results());
    // As much to compute as each in the crowd has: by instances it would be the last of all to end.
    let under_way = crowd_outlasts(&crowd, async { reply = Some(neighbour.script(computation()).await) }).await;
    assert_eq!(reply.expect("it was called").results(), expected);
    assert!(under_way > CROWD / 2, "{under_way} of {CROWD}");
}

#[tokio::test]
async fn a_short_request_is_not_interrupted_because_a_tick_falls_into_it() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let Some(script) = short(&probe).await else {
        println!("not tested: this machine is too slow, or too busy, for any call to be short");
        return;
    };
    let computes = |host: &TestHost| host.waits_of("compute");
    let before = computes(&host);
    let mut long = 0;
    // A tick falls into dozens of them.
    for _ in 0..1000 {
        let reply = probe.script(script.clone()).await;
        assert_eq!(reply.status, 200);
        long += u64::from(reply.timing("exec") >= COMPUTES_MS);
    }
    let moved = computes(&host) - before;
    // On a machine with other work some take longer, and are right to move: there and back.
    assert!(moved <= 10 + 2 * long, "{moved} of 1000 went on among those that compute, {long} were long");
}

/// With so much executed time a call computes: `LONG_RUN` in `pool/compute.rs`.
const COMPUTES_MS: f64 = 0.2;

/// A script that takes some tens of microseconds on this machine, if there is one: with a little more it would compute.
async fn short(probe: &TestFunction) -> Option<Value> {
    for n in (8..=22).rev() {
        let script = json!([{"fib": n}]);
        let mut took = Vec::new();
        for _ in 0..21 {
            took.push(probe.script(script.clone()).await.timing("exec"));
        }
        took.sort_by(f64::total_cmp);
        if took[took.len() / 2] < COMPUTES_MS * 0.7 {
            return Some(script);
        }
    }
    None
}
