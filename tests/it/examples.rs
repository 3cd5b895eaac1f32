//! The examples, deployed from their own manifest: each does what its first lines promise.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{TestFunction, TestHost, TestServer, eventually, write_examples};

/// What the manifest says of services that tests must replace by their own.
const COLLECTOR: &str = "127.0.0.1:4318";
const SESSIONS: &str = "127.0.0.1:9000";

/// Deploys an example as `dormouse deploy` does it, with `service` in the place of the address that the manifest names.
async fn deployed(host: &TestHost, package: &str, service: Option<&TestServer>) -> TestFunction {
    tests::component(package); // Built, whoever comes first.
    let name = package.strip_prefix("example-").expect("an example");
    let folder = tempfile::tempdir().unwrap();
    write_examples(folder.path(), |manifest| {
        let Some(service) = service else { return manifest };
        let address = service.address.to_string();
        // As the manifest tells its reader to do.
        let manifest = manifest.replace("# environment = ", "environment = ");
        manifest.replace(COLLECTOR, &address).replace(SESSIONS, &address)
    });
    let mut deploy = tokio::process::Command::new(env!("CARGO_BIN_EXE_host-under-test"));
    deploy.arg("deploy").arg(folder.path().join("dormouse.toml")).args(["--function", name, "--admin", &host.admin]);
    let output = deploy.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    host.function(name)
}

/// The function's newest window, once it is parked.
async fn last_window(host: &TestHost, function: &TestFunction) -> Value {
    function.reaches("parked").await;
    let windows = host.windows().await;
    let last = windows.iter().rfind(|window| window["function"] == function.name.as_str());
    last.expect("a window").clone()
}

#[tokio::test]
async fn hello_greets() {
    let host = TestHost::start().await;
    let hello = deployed(&host, "example-hello", None).await;
    assert_eq!(hello.invoke("Ada").await.text(), "Hello, Ada!\n");
    assert_eq!(hello.invoke("").await.text(), "Hello, world!\n");
    assert_eq!(host.get("/v1/functions/hello").await.json()["memoryMb"], 64, "the manifest's settings are in force");
}

#[tokio::test]
async fn counter_goes_on_counting_after_each_freeze() {
    let host = TestHost::start().await;
    let counter = deployed(&host, "example-counter", None).await;
    let mut instances = Vec::new();
    for request in 1..=4 {
        let text = counter.invoke("").await.text();
        let rest = text.strip_prefix(&format!("request {request} of instance ")).unwrap_or_else(|| panic!("{text}"));
        let (instance, rest) = rest.split_once(',').unwrap();
        assert_eq!(rest, format!(" frozen {} times so far\n", request - 1));
        instances.push(instance.to_owned());
        counter.reaches("parked").await;
    }
    instances.dedup();
    assert_eq!(instances.len(), 1, "one instance served all: {instances:?}");
}

#[tokio::test]
async fn orders_book_each_event_once() {
    let host = TestHost::start().await;
    let settings = json!({"maxInstances": 1, "async": {"retryWaitMs": 10}});
    let orders = host.deploy("orders", "example-orders", settings).await;
    let ordered = r#"{"triggerName": "regular", "payload": "tea"}"#;
    let request = orders.request(ordered).header("dormouse-invocation-type", "async");
    let sent = request.header("dormouse-invocation-id", "order-1").send().await.unwrap();
    assert_eq!(sent.status(), 202);
    let booked = eventually("the order being booked", async || {
        let view = host.get("/v1/functions/orders/invocations/order-1").await.json();
        if view["state"] == "succeeded" { Ok(view) } else { Err(view.to_string()) }
    })
    .await;
    assert_eq!(booked["attempts"], 2);
    assert_eq!(booked["reply"]["data"], "order-1 is booked, 1 in all\n");
    let again = orders.request("tea").header("x-request-id", "order-1").send().await.unwrap();
    assert_eq!(again.text().await.unwrap(), "order-1 is booked already\n");
}

/// The names of the spans in a batch that a collector got.
fn span_names(batch: &str) -> Vec<String> {
    let batch: Value = serde_json::from_str(batch).expect("OTLP in JSON");
    let spans = batch.pointer("/resourceSpans/0/scopeSpans/0/spans").and_then(Value::as_array).expect("spans");
    spans.iter().map(|span| span["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn tracing_sends_every_span_in_pre_freeze_and_no_request_waits_for_it() {
    const COLLECTOR_MS: u32 = 1000;
    let collector = TestServer::start("{}", Duration::from_millis(COLLECTOR_MS.into())).await;
    let host = TestHost::start().await;
    let tracing = deployed(&host, "example-tracing", Some(&collector)).await;
    let mut names = Vec::new();
    for round in 0..3 {
        let batch: Vec<String> = (0..5).map(|number| format!("span-{round}-{number}")).collect();
        let replies = join_all(batch.iter().map(|name| tracing.invoke(name.clone()))).await;
        for reply in &replies {
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.body.len(), 32, "a trace's identifier: {reply:?}");
            assert!(reply.timing("handler") < COLLECTOR_MS.into(), "it did not wait for the collector: {reply:?}");
        }
        names.extend(batch);
        tracing.reaches("parked").await;
        let mut sent: Vec<String> = collector.received().iter().flat_map(|batch| span_names(&batch.body)).collect();
        sent.sort_unstable();
        assert_eq!(sent, names, "once parked, the collector has every span, each once");
    }
    assert!(collector.received().iter().all(|batch| batch.method == "POST" && batch.path == "/v1/traces"));
    let freezes = host.metric("dormouse_hook_calls_total{hook=\"pre-freeze\"}").await;
    assert!(collector.received().len() as f64 <= freezes, "spans were sent outside of pre-freeze");
}

#[tokio::test]
async fn tracing_joins_the_trace_of_its_caller() {
    let collector = TestServer::start("{}", Duration::ZERO).await;
    let host = TestHost::start().await;
    let tracing = deployed(&host, "example-tracing", Some(&collector)).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = tracing.request("work").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(request.send().await.unwrap().text().await.unwrap(), trace);
    tracing.reaches("parked").await;
    let batch: Value = serde_json::from_str(&collector.received()[0].body).unwrap();
    let span = batch.pointer("/resourceSpans/0/scopeSpans/0/spans/0").unwrap();
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(trace), &json!("00f067aa0ba902b7")));
}

/// Checks the session's life: opened before the first request, closed with a report after `requests`.
fn session_is_closed(sessions: &TestServer, requests: u64) {
    let received = sessions.received();
    let [opened, closed] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!((opened.method.as_str(), opened.path.as_str()), ("POST", "/sessions"));
    assert_eq!((closed.method.as_str(), closed.path.as_str()), ("POST", "/sessions/session-1/close"));
    let report: Value = serde_json::from_str(&closed.body).unwrap();
    assert_eq!((&report["requests"], &report["status"]), (&json!(requests), &json!("stopped")), "{report}");
}

/// Starts the example and lets it serve two requests in its session.
async fn graceful_in_session(host: &TestHost, sessions: &TestServer) -> TestFunction {
    let graceful = deployed(host, "example-graceful", Some(sessions)).await;
    for request in 1..=2 {
        let text = graceful.invoke("").await.text();
        assert_eq!(text, format!("request {request} in http://{}/sessions/session-1\n", sessions.address));
        graceful.reaches("parked").await;
        assert_eq!(sessions.received().len(), 1, "one session is open, however often the instance freezes");
    }
    graceful
}

#[tokio::test]
async fn graceful_closes_its_session_when_an_operator_stops_it() {
    let sessions = TestServer::start("session-1", Duration::ZERO).await;
    let host = TestHost::start().await;
    let graceful = graceful_in_session(&host, &sessions).await;
    let instance = graceful.instances().await[0]["id"].as_str().unwrap().to_owned();
    assert!(host.post(&format!("/v1/instances/{instance}/stop")).await.status < 300);
    graceful.is_gone().await;
    session_is_closed(&sessions, 2);
}

#[tokio::test]
async fn graceful_closes_its_session_when_the_host_is_stopped() {
    let sessions = TestServer::start("session-1", Duration::ZERO).await;
    let host = TestHost::start().await;
    graceful_in_session(&host, &sessions).await;
    host.signal(Signal::TERM);
    let (status, _) = host.ended().await;
    assert!(status.success());
    session_is_closed(&sessions, 2);
}

#[tokio::test]
async fn background_ticks_while_awake_and_stands_still_while_parked() {
    let host = TestHost::start().await;
    let background = deployed(&host, "example-background", None).await;
    let ticks = async || background.invoke("").await.text().parse::<u64>().unwrap();
    let mut before = 0;
    let awake = host
        .cpu_of_all(async {
            // It lingers for 100 ms after each, in which it ticks.
            for _ in 0..5 {
                before = ticks().await;
                background.reaches("parked").await;
            }
        })
        .await;
    // The rule is about time in which nothing happens, so some must pass: 300 ticks, if anything ran.
    let parked = host.cpu_of_all(sleep(Duration::from_secs(3))).await;
    assert!(parked < awake, "{parked:?} of CPU while it was parked, {awake:?} for five calls");
    let thawed = ticks().await;
    assert!(thawed < before + 150, "{before} ticks, then {thawed}: it ticked while it was parked");
    // It lingers for 100 ms, in which it ticks.
    background.reaches("parked").await;
    eventually("more ticks", async || {
        let now = ticks().await;
        if now > thawed { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
}

#[tokio::test]
async fn cpu_is_charged_for_its_time_and_sleeper_is_not() {
    let host = TestHost::start().await;
    let cpu = deployed(&host, "example-cpu", None).await;
    let sleeper = deployed(&host, "example-sleeper", None).await;
    assert_eq!(cpu.invoke("100").await.text(), "25\n");
    assert_eq!(sleeper.invoke("1").await.text(), "slept for 1 ms\n");
    cpu.reaches("parked").await;
    sleeper.reaches("parked").await;

    // The time on the clock also holds what other programs took of the CPU; the threads' own does not.
    eventually("all of the CPU time being charged", async || {
        let before = host.worker_cpu();
        let counted = cpu.invoke("1000000").await;
        assert_eq!(counted.text(), "78498\n");
        let cpu_ms = (host.worker_cpu() - before).as_secs_f64() * 1000.0;
        let window = last_window(&host, &cpu).await;
        let share = window["executedMs"].as_f64().unwrap() / cpu_ms;
        if share > 0.9 { Ok(()) } else { Err(format!("{share} of {cpu_ms} ms: {counted:?} and {window}")) }
    })
    .await;

    let slept = join_all((0..20).map(|_| sleeper.invoke("1000"))).await;
    assert!(slept.iter().all(|reply| reply.text() == "slept for 1000 ms\n"), "{slept:?}");
    let window = last_window(&host, &sleeper).await;
    let waited: f64 = slept.iter().map(|reply| reply.timing("handler")).sum();
    assert!(window["executedMs"].as_f64().unwrap() < waited * 0.01, "{waited} ms of waiting: {window}");
    assert_eq!(sleeper.instances().await.len(), 1, "one instance waits for all");
}

/// The lines of an example's sources; its tests in a file of their own are not what a reader must read.
fn source_lines(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|path| path.file_name().is_none_or(|name| name != "tests.rs"));
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    sources.map(|path| std::fs::read_to_string(path).unwrap().lines().filter(is_code).count()).sum()
}

#[test]
fn every_example_is_in_the_manifest_and_reads_at_a_glance() {
    let examples = tests::repository().join("examples");
    let manifest = std::fs::read_to_string(examples.join("dormouse.toml")).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        if !folder.join("Cargo.toml").exists() {
            // Not everybody has the tools of other languages, so those examples come up by themselves.
            let has_manifest = ["dormouse.toml", "s.yaml"].iter().any(|file| folder.join(file).exists());
            assert!(has_manifest, "{name} has no manifest");
            continue;
        }
        // Those that come up by themselves have a manifest of their own.
        let own = std::fs::read_to_string(folder.join("dormouse.toml")).unwrap_or_default();
        let named = [&manifest, &own].iter().any(|manifest| manifest.contains(&format!("[functions.{name}]\n")));
        assert!(named, "{name} is in no manifest");
        let lines = source_lines(&folder.join("src"));
        assert!(lines <= 60, "{name} has {lines} lines of Rust");
        count += 1;
    }
    assert_eq!(count, 8);
}
