//! What a guest can do to others: nothing. Whatever it takes too much of costs itself, and only itself, its life.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Kind, Reply, TestFunction, TestHost, TestServer, eventually, over_kinds};
use tests::text::Small;

const PROBE: &str = "guest-probe";

over_kinds! {
    calls: [
        a_guest_that_grows_for_ever_runs_out_of_its_own_memory,
        a_guest_that_prints_for_ever_loses_lines_and_nothing_else,
        a_guest_that_spins_for_ever_is_stopped_at_its_timeout,
    ],
}

async fn a_guest_that_grows_for_ever_runs_out_of_its_own_memory(kind: Kind) {
    // What the largest language runtime needs, and a little.
    let street = Street::start(kind, json!({"memoryMb": 128})).await;
    street.script(json!(["grow-forever"])).await.problem(502, "function-out-of-memory");
    street.goes_on().await;
}

async fn a_guest_that_prints_for_ever_loses_lines_and_nothing_else(kind: Kind) {
    let street = Street::start(kind, json!({"timeoutMs": 5000})).await;
    street.script(json!(["print-forever"])).await.problem(504, "function-timed-out");
    eventually("the marker", async || match street.probe.lines_with(" were dropped here: ").await {
        0 => Err(format!("{:?}", street.probe.lines().await.last())),
        _ => Ok(()),
    })
    .await;
    let lines = street.probe.lines().await;
    let bytes: usize = lines.iter().map(|line| line["text"].as_str().unwrap().len()).sum();
    // 8 MiB is what it may write at once, and what one answer has at most.
    assert!(bytes <= (8 << 20) + (33 << 10), "{} lines of {bytes} bytes are kept", lines.len());
    street.goes_on().await;
}

#[tokio::test]
async fn a_guest_that_hoards_handles_is_stopped_at_their_bound() {
    let street = Street::start(Kind::Event, json!({})).await;
    let detail = street.script(json!(["open-handles-forever"])).await.problem(502, "function-crashed");
    assert!(detail.starts_with("handle-limit: "), "{detail}");
    street.goes_on().await;
}

#[tokio::test]
async fn a_guest_that_recurses_for_ever_overflows_its_own_stack() {
    let street = Street::start(Kind::Event, json!({})).await;
    let detail = street.script(json!(["recurse-forever"])).await.problem(502, "function-crashed");
    assert!(detail.starts_with("stack-overflow: "), "{detail}");
    street.goes_on().await;
}

async fn a_guest_that_spins_for_ever_is_stopped_at_its_timeout(kind: Kind) {
    let street = Street::start(kind, json!({"timeoutMs": 300})).await;
    street.script(json!(["spin-forever"])).await.problem(504, "function-timed-out");
    street.goes_on().await;
}

#[tokio::test]
async fn outgoing_requests_reach_allowed_hosts_only() {
    let host = TestHost::start().await;
    let server = TestServer::start("hello from outside", Duration::ZERO).await;
    let url = format!("http://{}/path?query=1", server.address);
    let get = json!([{"http-get": url}]);
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let other_port = format!("127.0.0.1:{}", server.address.port() ^ 1);
    let elsewhere = json!([other_port, "*.example.com", "localhost", "127.0.0.10"]);
    for allowed in [json!([]), elsewhere] {
        assert_eq!(probe.configure(json!({"allowedOutboundHosts": allowed})).await.status, 200);
        let denied = probe.script(get.clone()).await;
        let told = denied.results();
        let error = told[0]["error"].as_str().expect("an error");
        assert!(error.contains("allowed-outbound-hosts"), "{error}");
        let lines = probe.lines().await;
        let told = lines.iter().rfind(|line| line["stream"] == "host").expect("a line of the host");
        let text = told["text"].as_str().unwrap();
        assert!(text.contains(&server.address.to_string()) && text.contains("allowedOutboundHosts"), "{text}");
        assert!(told["instance"].as_str().unwrap().starts_with("i-"));
    }
    assert!(server.received().is_empty(), "nothing left the host");

    for allowed in [server.address.to_string(), "127.0.0.1".to_owned(), "*".to_owned()] {
        assert_eq!(probe.configure(json!({"allowedOutboundHosts": [allowed]})).await.status, 200);
        let answer = probe.script(get.clone()).await.results();
        assert_eq!(answer[0], json!({"status": 200, "body": "hello from outside"}), "{allowed}");
    }
    let received = server.received();
    assert_eq!(received.len(), 3);
    assert_eq!((received[0].method.as_str(), received[0].path.as_str()), ("GET", "/path?query=1"));
}

#[tokio::test]
async fn a_guest_cannot_use_up_the_hosts_connections() {
    let host = TestHost::start().await;
    // Long enough for all requests to be under way together on a busy machine.
    let server = TestServer::start("late", Duration::from_secs(5)).await;
    let settings = json!({"concurrency": 200, "maxInstances": 1, "allowedOutboundHosts": ["*"]});
    let probe = host.deploy("probe", PROBE, settings).await;
    let get = json!([{"http-get": format!("http://{}/", server.address)}]);
    let replies: Vec<_> = (0..140).map(|_| probe.script_in_background(get.clone())).collect();
    let mut refused = 0;
    for reply in replies {
        let results = reply.await.unwrap().results();
        refused += usize::from(results[0]["error"].is_string());
    }
    assert_eq!((refused, server.received().len()), (12, 128));
    assert_eq!(probe.lines_with("128 are under way already").await, 12);
}

#[tokio::test]
async fn guests_together_cannot_use_up_the_hosts_connections() {
    let host = TestHost::builder().flag("--outgoing-connections-max=6").start().await;
    let server = TestServer::start("late", Duration::from_secs(3)).await;
    let settings = json!({"concurrency": 20, "maxInstances": 1, "allowedOutboundHosts": ["*"]});
    let get = json!([{"http-get": format!("http://{}/", server.address)}]);
    let first = host.deploy("first", PROBE, settings.clone()).await;
    let second = host.deploy("second", PROBE, settings).await;
    let refused = async |function: &TestFunction, requests: usize| {
        let replies = join_all((0..requests).map(|_| function.script(get.clone()))).await;
        replies.iter().filter(|reply| reply.results()[0]["error"].is_string()).count()
    };
    // One has half of them, and both have all.
    let (of_first, of_second) = tokio::join!(refused(&first, 8), refused(&second, 2));
    assert_eq!((of_first, of_second), (5, 0));
    assert_eq!(first.lines_with("--outgoing-connections-max").await, 5);
    // The places of those that are closed are free again.
    first.reaches("parked").await;
    assert_eq!(refused(&first, 3).await, 0);
}

#[tokio::test]
async fn a_guest_sees_its_own_environment_and_no_files() {
    let host = TestHost::builder().variable("SECRET_OF_THE_HOST", "4711").start().await;
    let own = json!({"COLOUR": "green", "EMPTY": ""});
    let probe = host.deploy("probe", PROBE, json!({"environment": own})).await;
    let seen = probe.script(json!(["env", "read-file"])).await.results();
    assert_eq!(seen[0], own, "all that was configured, and nothing else");
    let file = seen[1].as_str().expect("an error in words");
    assert!(!file.starts_with("read "), "{file}");
}

#[tokio::test]
async fn a_guest_has_the_time_and_random_numbers() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let now_ms = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let before = now_ms();
    let told = probe.script(json!(["now", {"sleep-ms": 5}, "now"])).await.results();
    let (first, second) = (told[0].as_u64().unwrap(), told[2].as_u64().unwrap());
    assert!(before <= first && first + 5 <= second && second <= now_ms(), "{before} {told}");

    let random = deploy_small(&host, "random", RANDOM, json!({})).await;
    let (one, other) = (random.invoke("").await.body, random.invoke("").await.body);
    assert_eq!(one.len(), 8);
    assert_ne!(one, other);
}

#[tokio::test]
async fn memory_is_bounded_by_instance_as_configured() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({"memoryMb": 64, "maxInstances": 1})).await;
    assert_eq!(probe.script(json!([{"grow-mb": 60}])).await.status, 200);
    let parked = probe.reaches("parked").await;
    let bytes = parked[0]["memoryBytes"].as_u64().unwrap();
    assert!((60 << 20..=64 << 20).contains(&bytes), "{bytes}");
    probe.script(json!([{"grow-mb": 4}])).await.problem(502, "function-out-of-memory");
    assert_eq!(probe.script(json!([{"grow-mb": 60}])).await.status, 200, "the next instance has all of it again");

    // To the page: 64 MB are 1024 of them.
    let all = Small { pages: 1024, ..Small::PLAIN };
    let whole = deploy_small(&host, "whole", all, json!({"memoryMb": 64})).await;
    assert_eq!(whole.invoke("").await.status, 200);
    let more = Small { pages: 1025, ..Small::PLAIN };
    let beyond = deploy_small(&host, "beyond", more, json!({"memoryMb": 64})).await;
    beyond.invoke("").await.problem(502, "function-out-of-memory");
    assert_eq!(beyond.configure(json!({"memoryMb": 65})).await.status, 200);
    assert_eq!(beyond.invoke("").await.status, 200);
}

#[tokio::test]
async fn a_new_instance_never_sees_what_another_left_in_memory() {
    let host = TestHost::start().await;
    // What it finds in its memory when it is called; then it leaves a pattern there.
    let one = deploy_small(&host, "one", MARKING, json!({})).await;
    assert_eq!(one.invoke("").await.body, [0; 8]);
    assert_eq!(one.invoke("").await.body, [0x5a; 8], "the same instance finds its own pattern");
    assert_eq!(one.delete().await.status, 204);
    for name in ["two", "three", "four"] {
        let other = deploy_small(&host, name, MARKING, json!({})).await;
        assert_eq!(other.invoke("").await.body, [0; 8], "{name} finds somebody else's pattern");
        let stopped = other.reaches("parked").await.remove(0);
        let order = format!("/v1/instances/{}/stop", stopped["id"].as_str().unwrap());
        assert_eq!(host.post(&order).await.status, 202);
        other.is_gone().await;
        assert_eq!(other.invoke("").await.body, [0; 8], "a second instance of {name} finds the first one's");
    }
}

#[tokio::test]
async fn memory_that_grows_is_empty_whoever_had_it_before() {
    let host = TestHost::start().await;
    for name in ["one", "two", "three"] {
        let growing = deploy_small(&host, name, GROWING, json!({"memoryMb": 128})).await;
        assert_eq!(growing.invoke("").await.body, [0; 8], "{name} finds somebody else's pattern");
        assert_eq!(growing.invoke("").await.body, [0x5a; 8], "its own stays, also where it moved from");
        let parked = growing.reaches("parked").await.remove(0);
        let order = format!("/v1/instances/{}/stop", parked["id"].as_str().unwrap());
        assert_eq!(host.post(&order).await.status, 202);
        growing.is_gone().await;
    }
}

#[tokio::test]
async fn calls_into_the_host_from_the_end_of_a_stack_have_room() {
    let host = TestHost::start().await;
    let neighbour = deploy_small(&host, "neighbour", Small::PLAIN, json!({})).await;
    let deep = deploy_small(&host, "deep", DESCENDING, json!({})).await;
    for _ in 0..3 {
        let detail = deep.invoke("").await.problem(502, "function-crashed");
        assert!(detail.starts_with("stack-overflow: "), "{detail}");
    }
    assert_eq!(neighbour.invoke("").await.status, 200);
}

/// Component level and body of a function that answers a random number.
const RANDOM: Small = Small {
    pages: 1,
    imports: r#"
        (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
        (core func $lowered (canon lower (func $random "get-random-u64")))"#,
    start: "",
    body: "(i64.store (i32.const 32) (call $lowered))",
};

/// A function of 16 MB that answers all bits it finds in its memory, and sets some.
const MARKING: Small = Small {
    pages: 256,
    imports: "",
    start: "",
    body: "
        (local.set $at (i32.const 65536))
        (loop $again
            (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
            (i64.store (local.get $at) (i64.const 0x5a5a5a5a5a5a5a5a))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $again (i32.lt_u (local.get $at) (i32.const 16777216))))
        (i64.store (i32.const 32) (local.get $seen))",
};

/// A function that grows from 1 MB to 80 MB, answers all bits it finds in its memory, and sets some.
const GROWING: Small = Small {
    pages: 16,
    imports: "",
    start: "",
    body: "
        (if (i32.lt_u (memory.size) (i32.const 1280))
            (then (drop (memory.grow (i32.const 1264)))))
        (local.set $at (i32.const 65536))
        (loop $again
            (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
            (i64.store (local.get $at) (i64.const 0x5a5a5a5a5a5a5a5a))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $again (i32.lt_u (local.get $at) (i32.const 83886080))))
        (i64.store (i32.const 32) (local.get $seen))",
};

/// A function that calls itself, its third, for ever, and the host on every level.
const DESCENDING: Small = Small {
    imports: RANDOM.imports,
    body: "
        (drop (call $lowered))
        (drop (call 2
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0)))",
    ..RANDOM
};

/// A host with a guest that may misbehave, and one next door that must not notice.
struct Street {
    host: TestHost,
    probe: TestFunction,
    neighbour: TestFunction,
}

impl Street {
    async fn start(kind: Kind, settings: Value) -> Street {
        let host = TestHost::start().await;
        let neighbour = deploy_small(&host, "neighbour", Small::PLAIN, json!({})).await;
        let probe = kind.deploy(&host, "probe", settings).await;
        Street { host, probe, neighbour }
    }

    /// Runs a script, and calls the neighbour all the while, which leaves most of the CPU to the guest.
    async fn script(&self, steps: Value) -> Reply {
        let running = self.probe.script_in_background(steps);
        while !running.is_finished() {
            assert_eq!(self.neighbour.invoke("").await.status, 200, "the neighbour is disturbed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        running.await.unwrap()
    }

    /// Checks that afterwards all is as if nothing had happened.
    async fn goes_on(&self) {
        self.probe.is_gone().await;
        let instances = self.neighbour.instances().await;
        assert_eq!(instances.len(), 1, "the neighbour's first instance still serves: {instances:?}");
        assert_eq!(self.neighbour.invoke("").await.status, 200);
        assert_eq!(self.probe.script(json!(["count"])).await.results(), json!([1]), "a new instance serves");
        assert_eq!(self.host.get("/healthz").await.status, 200);
    }
}

async fn deploy_small(host: &TestHost, name: &str, small: Small, settings: Value) -> TestFunction {
    let reply = host.put_code(name, small.component(), &settings).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    host.function(name)
}
