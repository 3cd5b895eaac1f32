//! The end of a host: what it was asked for, it finishes; what it holds, it takes leave of.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use futures::future::join_all;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Caller, Kind, TestHost, TestServer, eventually, over_kinds};

over_kinds! {
    calls: [
        sigterm_answers_every_request_and_runs_every_pre_stop,
        cut_off_requests_are_answered_and_recorded,
    ],
}

/// Settings with which the probe's hooks report to `server`.
fn reporting(server: &TestServer, more: &Value) -> Value {
    let mut settings = more.clone();
    settings["environment"]["HOOK_URL"] = format!("http://{}/", server.address).into();
    settings["allowedOutboundHosts"] = json!([server.address.to_string()]);
    settings
}

/// The instances whose pre-stop reported to `server`, each as often as it did.
fn pre_stops(server: &TestServer) -> Vec<String> {
    let reports = server.received();
    let reports = reports.iter().map(|report| serde_json::from_str::<Value>(&report.body).expect("a report"));
    let stops = reports.filter(|report| report["hook"] == "pre-stop");
    stops.map(|report| report["instance"].as_str().expect("an instance").to_owned()).collect()
}

async fn says(host: &TestHost, words: &str) {
    let said = async || if host.log().contains(words) { Ok(()) } else { Err(host.log()) };
    eventually(words, said).await;
}

/// Waits until the host ended in order, and returns what it says about that.
async fn stopped(host: TestHost) -> Value {
    let (status, rest) = host.ended().await;
    assert_eq!(status.code(), Some(0), "{status}: {rest}");
    let stopped: Value = serde_json::from_str(&rest).unwrap_or_else(|error| panic!("{rest:?}: {error}"));
    stopped["stopped"].clone()
}

/// Stops a host by `signal` while requests run and wait.
async fn drains_in_order(kind: Kind, signal: Signal) {
    let server = TestServer::start("", Duration::ZERO).await;
    let host = TestHost::start().await;
    let settings = reporting(&server, &json!({"maxInstances": 3}));
    let busy = kind.deploy(&host, "busy", settings).await;
    let settings = reporting(&server, &json!({"concurrency": 10, "maxInstances": 1}));
    let parked = kind.deploy(&host, "parked", settings).await;
    parked.script(json!([])).await.results();
    let resting = parked.reaches("parked").await;

    let requests: Vec<_> = (0..12).map(|_| busy.script_in_background(json!([{"sleep-ms": 500}]))).collect();
    busy.has_in_flight(3).await;
    // When the first three are done, the other nine have long arrived: three run, six wait.
    eventually("the first replies", async || {
        let ended = host.metric("dormouse_requests_total{function=\"busy\"").await;
        if ended >= 3.0 { Ok(()) } else { Err(format!("{ended} ended")) }
    })
    .await;
    let instances = busy.instances().await;
    assert_eq!(instances.len(), 3, "{instances:?}");
    host.signal(signal);
    for request in requests {
        let reply = request.await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let figures = stopped(host).await;
    assert_eq!(figures, json!({"instances": 4, "preStops": 4, "unfinished": 0}));
    let ids = instances.iter().chain(&resting).map(|instance| instance["id"].as_str().unwrap().to_owned());
    let told = pre_stops(&server);
    assert_eq!(told.len(), 4, "each once: {told:?}");
    assert_eq!(BTreeSet::from_iter(told), BTreeSet::from_iter(ids));
}

async fn sigterm_answers_every_request_and_runs_every_pre_stop(kind: Kind) {
    drains_in_order(kind, Signal::TERM).await;
}

#[tokio::test]
async fn ctrl_c_answers_every_request_and_runs_every_pre_stop() {
    drains_in_order(Kind::Event, Signal::INT).await;
}

#[tokio::test]
async fn a_draining_host_takes_no_new_request_and_says_so() {
    let host = TestHost::start().await;
    let function = host.deploy("busy", "guest-probe", TestHost::defaults()).await;
    let request = function.script_in_background(json!([{"sleep-ms": 2000}]));
    function.has_in_flight(1).await;
    host.signal(Signal::TERM);
    says(&host, "draining").await;
    let refused = eventually("a refusal", async || {
        let reply = function.script(json!([])).await;
        if reply.status == 200 { Err(format!("{reply:?}")) } else { Ok(reply) }
    })
    .await;
    refused.problem(503, "host-draining");
    request.await.unwrap().results();
    assert_eq!(stopped(host).await["unfinished"], 0);
}

#[tokio::test]
async fn a_pre_stop_that_hangs_is_cut_off_at_its_timeout() {
    let host = TestHost::start().await;
    let settings = json!({
        "environment": {"PRE_STOP": r#"{"do": [{"sleep-ms": 80000}]}"#},
        "lifecycle": {"preStop": {"timeoutMs": 300}},
    });
    let function = host.deploy("hanging", "guest-probe", settings).await;
    function.script(json!([])).await.results();
    function.reaches("parked").await;
    let told = Instant::now();
    host.signal(Signal::TERM);
    says(&host, "pre-stop did not end within 300 ms; the instance is dropped").await;
    assert_eq!(stopped(host).await, json!({"instances": 1, "preStops": 1, "unfinished": 0}));
    // Neither before the hook's timeout nor long after; without it, the drain's 30 s would end the wait.
    let took = told.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn the_drain_deadline_bounds_the_whole() {
    let host = TestHost::builder().flag("--drain-timeout-ms=500").start().await;
    let settings = json!({
        "environment": {"PRE_STOP": r#"{"do": [{"sleep-ms": 80000}]}"#},
        "lifecycle": {"preStop": {"timeoutMs": 90_000}},
    });
    let function = host.deploy("hanging", "guest-probe", settings).await;
    let request = function.script_in_background(json!([{"sleep-ms": 50_000}]));
    function.has_in_flight(1).await;
    let parked = host.deploy("parked", "guest-probe", TestHost::defaults()).await;
    parked.script(json!([])).await.results();
    parked.reaches("parked").await;
    let told = Instant::now();
    host.signal(Signal::TERM);
    assert_eq!(stopped(host).await, json!({"instances": 2, "preStops": 1, "unfinished": 1}));
    let took = told.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(15), "{took:?}");
    request.await.unwrap().problem(503, "host-draining");
}

/// What is cut off gets an answer and a record, and the next start finds nothing that was left open.
async fn cut_off_requests_are_answered_and_recorded(kind: Kind) {
    let host = TestHost::builder().flag("--drain-timeout-ms=300").start().await;
    let one = json!({"maxInstances": 1, "concurrency": 1});
    let waiting = kind.deploy(&host, "waiting", one).await;
    let requests = [waiting.script_in_background(json!([{"sleep-ms": 25_000}]))];
    waiting.instance_has_in_flight(1).await;
    let queued = waiting.script_in_background(json!([]));
    let computing = kind.deploy(&host, "computing", json!({})).await;
    let burning = computing.script_in_background(json!(["spin-forever"]));
    computing.instance_has_in_flight(1).await;
    eventually("one that waits", async || match host.metric("dormouse_waiting_requests").await {
        1.0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let again = host.same();
    host.signal(Signal::TERM);
    assert_eq!(stopped(host).await["unfinished"], 2);
    for request in requests.into_iter().chain([queued, burning]) {
        request.await.unwrap().problem(503, "host-draining");
    }
    let host = again.start().await;
    let outcomes: Vec<Value> = host.invocations().await.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, vec!["host-draining"; 3]);
    let windows = host.windows().await;
    assert!(windows.len() == 2 && windows.iter().all(|window| window["state"] == "ended"), "{windows:?}");
    assert!(!host.log().contains("killed"), "{}", host.log());
}

#[tokio::test]
async fn half_a_head_does_not_hold_a_host_that_stops() {
    let host = TestHost::start().await;
    let mut callers = Vec::new();
    for plane in [&host.data, &host.admin] {
        let mut caller = Caller::connect(plane).await;
        caller.write("GET /v1/func").await;
        callers.push(caller);
    }
    let told = Instant::now();
    host.signal(Signal::TERM);
    assert_eq!(stopped(host).await["unfinished"], 0);
    // The drain may take 30 s, and a head 60.
    assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_the_host_at_once() {
    let server = TestServer::start("", Duration::ZERO).await;
    let host = TestHost::start().await;
    let settings = json!({
        "environment": {"PRE_STOP": r#"{"do": [{"sleep-ms": 80000}]}"#},
        "lifecycle": {"preStop": {"timeoutMs": 90_000}},
    });
    let function = host.deploy("hanging", "guest-probe", reporting(&server, &settings)).await;
    function.script(json!([])).await.results();
    function.reaches("parked").await;
    host.signal(Signal::TERM);
    let began = async || if pre_stops(&server).is_empty() { Err(String::new()) } else { Ok(()) };
    eventually("pre-stop", began).await;
    let told = Instant::now();
    host.signal(Signal::INT);
    assert_eq!(stopped(host).await, json!({"instances": 1, "preStops": 1, "unfinished": 1}));
    assert!(told.elapsed() < Duration::from_secs(15), "the drain's 30 s were waited for: {:?}", told.elapsed());
}

#[tokio::test]
async fn suspended_instances_finish_what_they_began_and_stop_in_order() {
    let server = TestServer::start("", Duration::ZERO).await;
    let host = TestHost::start().await;
    let settings = reporting(&server, &json!({"concurrency": 2, "maxInstances": 1}));
    let function = host.deploy("paused", "guest-probe", settings).await;
    let requests: Vec<_> =
        (0..2).map(|_| function.script_in_background(json!([{"sleep-ms": 1000}, "count"]))).collect();
    // Both have begun. One that was only handed over would go to another instance when this one stops.
    eventually("the beginning of both", async || {
        let instances = function.instances().await;
        if instances.iter().any(|instance| instance["requests"] == 2) { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    host.order("paused", "suspend").await;
    function.reaches("suspended").await;
    host.signal(Signal::TERM);
    for reply in join_all(requests).await {
        reply.unwrap().results();
    }
    assert_eq!(stopped(host).await, json!({"instances": 1, "preStops": 1, "unfinished": 0}));
    assert_eq!(pre_stops(&server).len(), 1);
}

#[tokio::test]
async fn what_was_used_until_the_end_is_on_the_bill() {
    let host = TestHost::start().await;
    let settings = json!({"environment": {"PRE_STOP": r#"{"do": [{"work": 100000000}]}"#}});
    let function = host.deploy("last", "guest-probe", settings).await;
    let reply = function.script(json!([{"work": 100_000_000}])).await;
    reply.results();
    function.reaches("parked").await;
    let host = host.restart().await;
    let windows = host.windows().await;
    let last = windows.last().unwrap();
    assert!(last["state"] == "ended" && last["hookCalls"] == 1, "{windows:?}");
    let (executed, same_work) = (last["executedMs"].as_f64().unwrap(), reply.timing("exec"));
    assert!(executed > same_work / 2.0, "{executed} ms, where a request took {same_work} ms for the same: {last}");
    assert_eq!(host.invocations().await.len(), 1);
}

#[tokio::test]
async fn sighup_ends_no_host_that_has_no_terminal() {
    let host = TestHost::start().await;
    let function = host.deploy("counter", "guest-probe", TestHost::defaults()).await;
    assert_eq!(function.script(json!(["count"])).await.results(), json!([1]));
    host.signal(Signal::HUP);
    says(&host, "SIGHUP").await;
    assert_eq!(function.script(json!(["count"])).await.results(), json!([2]));
}

#[tokio::test]
async fn a_host_whose_terminal_is_closed_takes_leave_of_its_instances() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&terminal).unwrap();
    let side = File::options().read(true).write(true).open(ptsname(&terminal, Vec::new()).unwrap().to_str().unwrap());
    let host = TestHost::builder().terminal(side.unwrap()).start().await;
    let server = TestServer::start("noted", Duration::ZERO).await;
    let function = host.deploy("counter", "guest-probe", reporting(&server, &TestHost::defaults())).await;
    assert_eq!(function.script(json!(["count"])).await.results(), json!([1]));
    host.signal(Signal::HUP);
    says(&host, "SIGHUP").await;
    assert_eq!(function.script(json!(["count"])).await.results(), json!([2]), "its terminal is there");
    drop(terminal);
    let (status, said) = host.ended().await;
    assert!(status.success(), "{status} {said}");
    assert_eq!(pre_stops(&server).len(), 1, "{said}");
}
