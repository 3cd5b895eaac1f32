//! The operators' plane: functions, instances, logs, the bill, health, and who may use all that.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Gate, PATIENCE, Reply, TestFunction, TestHost, eventually};
use tests::text::Small;

const PROBE: &str = "guest-probe";

#[tokio::test]
async fn functions_are_created_listed_replaced_and_deleted() {
    let host = TestHost::start().await;
    assert_eq!(host.get("/v1/functions").await.json(), json!({"functions": []}));
    for (name, status) in [("b", 201), ("c", 201), ("_a", 201), ("B", 201), ("b", 200)] {
        let reply = host.put_code(name, Small::PLAIN.component(), &json!({})).await;
        assert_eq!((reply.status, &reply.json()["name"]), (status, &json!(name)), "{reply:?}");
    }
    assert_eq!(names(&host).await, ["B", "_a", "b", "c"], "sorted by name");

    let shown = host.get("/v1/functions/b").await.json();
    assert_eq!((&shown["version"], &shown["revision"]), (&json!("LATEST"), &json!(5)), "the host's fifth revision");
    assert_eq!(shown["componentBytes"], Small::PLAIN.component().len());
    assert_eq!(shown["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(
        shown["exports"],
        json!({"protocol": "event", "capacity": {"shares": false}, "handler": {"name": "handler", "async": false}})
    );
    assert_eq!((&shown["memoryMb"], &shown["timeoutMs"]), (&json!(128), &json!(60_000)));
    assert_eq!((&shown["concurrency"], &shown["suspended"]), (&json!(1), &json!(false)));
    assert!(shown["createdAt"].as_str().unwrap() < shown["updatedAt"].as_str().unwrap(), "{shown}");

    assert_eq!(host.function("b").delete().await.status, 204);
    assert_eq!(names(&host).await, ["B", "_a", "c"]);
    host.function("b").invoke("").await.problem(404, "function-not-found");
    assert_eq!(host.restart().await.get("/v1/functions/b").await.status, 404, "deleted is deleted");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_named() {
    let host = TestHost::start().await;
    for (method, path) in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/instances"),
        ("GET", "/logs"),
        ("POST", "/suspend"),
        ("POST", "/resume"),
        ("POST", "/disable"),
        ("POST", "/enable"),
        ("POST", "/versions"),
        ("GET", "/versions"),
        ("GET", "/versions/1"),
        ("DELETE", "/versions/1"),
        ("GET", "/aliases"),
        ("GET", "/aliases/prod"),
        ("DELETE", "/aliases/prod"),
        ("POST", "/aliases/prod/rollback"),
    ] {
        let reply = send(&host, method, &format!("/v1/functions/nobody{path}"), "{}").await;
        let detail = reply.problem(404, "function-not-found");
        assert!(detail.contains("`nobody`"), "{method} {path}: {detail}");
    }
    for (method, path) in [("GET", ""), ("POST", "/stop")] {
        let reply = send(&host, method, &format!("/v1/instances/i-0123456789abcdef{path}"), "").await;
        assert!(reply.problem(404, "instance-not-found").contains("i-0123456789abcdef"));
        let reply = send(&host, method, &format!("/v1/instances/i-1{path}"), "").await;
        assert!(reply.problem(400, "invalid-request").contains("16 hexadecimal digits"));
    }
    assert!(host.get("/v2").await.problem(404, "not-found").contains("/openapi.json"));
    let reply = send(&host, "POST", "/v1/functions", "").await;
    assert!(reply.problem(405, "method-not-allowed").contains("/openapi.json"));
    assert!(reply.header("allow").contains("GET"), "{reply:?}");
}

#[tokio::test]
async fn names_that_no_function_may_have_are_refused() {
    let host = TestHost::start().await;
    for name in ["1a", "-a", "a.b.c", "a%20b", "%C3%BC", "a%2Fb", "..%2F..%2Fetc", &"a".repeat(129)] {
        let reply = host.put_code(name, Small::PLAIN.component(), &json!({})).await;
        let detail = reply.problem(400, "invalid-name");
        assert!(detail.contains("1 to 128 letters"), "{name}: {detail}");
    }
    let longest = "a".repeat(64);
    assert_eq!(host.put_code(&longest, Small::PLAIN.component(), &json!({})).await.status, 201);
    assert_eq!(names(&host).await, [longest]);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_restores_the_default() {
    let host = TestHost::start().await;
    let settings = json!({
        "memoryMb": 256, "timeoutMs": 5, "description": "old", "tags": {"a": "1", "b": "2"},
        "allowedOutboundHosts": ["a.example", "b.example"], "billingBasis": "duration",
        "lifecycle": {"preStop": {"timeoutMs": 7}, "preFreeze": {"handler": ""}},
    });
    let function = deploy_small(&host, "f", settings).await;
    let patch = json!({
        "memoryMb": null, "tags": {"a": null, "c": "3"}, "allowedOutboundHosts": ["c.example"], "billingBasis": null,
        "lifecycle": {"preStop": null, "preFreeze": {"timeoutMs": 8}},
    });
    let reply = function.configure(patch).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let after = reply.json();
    assert_eq!(after["memoryMb"], 128, "null restores the default");
    assert_eq!((&after["timeoutMs"], &after["description"]), (&json!(5), &json!("old")), "absent stays");
    assert_eq!(after["tags"], json!({"b": "2", "c": "3"}), "objects are merged");
    assert_eq!(after["allowedOutboundHosts"], json!(["c.example"]), "lists are replaced");
    assert_eq!(after.get("billingBasis"), None);
    assert_eq!(after["lifecycle"]["preStop"], json!({"timeoutMs": 3000}));
    assert_eq!(after["lifecycle"]["preFreeze"], json!({"handler": "", "timeoutMs": 8}));
    assert_eq!(host.get("/v1/functions/f").await.json(), after, "what was answered is what is kept");

    let unchanged = function.configure(json!({})).await.json();
    assert_eq!(unchanged["revision"], after["revision"]);
}

#[tokio::test]
async fn a_patch_with_faults_changes_nothing_and_every_fault_is_named() {
    let host = TestHost::start().await;
    let function = deploy_small(&host, "f", json!({"memoryMb": 256})).await;
    let before = host.get("/v1/functions/f").await.json();
    let patch = json!({
        "description": "new", "memoryMb": 63, "timeoutMs": 86_400_001, "concurrency": 201, "maxInstances": 0,
        "handler": "", "environment": {"A=B": "1"}, "allowedOutboundHosts": ["http://a.example"],
        "lifecycle": {"initializer": {"timeoutMs": 300_001}, "preFreeze": {"timeoutMs": 90_001}},
        "tags": {"long": "x".repeat(2000)},
    });
    let detail = function.configure(patch).await.problem(422, "settings-refused");
    for word in [
        "`memoryMb` is 63",
        "64 to 4096",
        "`timeoutMs` is 86400001",
        "`concurrency` is 201",
        "`maxInstances` is 0",
        "`handler` is empty",
        "A=B",
        "http://a.example",
        "`lifecycle.initializer.timeoutMs` is 300001",
        "`lifecycle.preFreeze.timeoutMs` is 90001",
        "`tags`",
    ] {
        assert!(detail.contains(word), "no {word:?} in {detail}");
    }
    for unknown in
        ["memoryMB", "memory", "name", "version", "revision", "sha256", "suspended", "instances", "createdAt"]
    {
        let detail = function.configure(json!({(unknown): before["name"]})).await.problem(422, "settings-refused");
        assert!(detail.contains(&format!("`{unknown}`")), "{unknown}: {detail}");
    }
    for wrong in [json!({"memoryMb": "256"}), json!({"memoryMb": -1}), json!({"concurrency": 1.5}), json!([]), json!(1)]
    {
        function.configure(wrong).await.problem(422, "settings-refused");
    }
    for garbage in ["", "{", "{}{}", "\u{feff}{}"] {
        send(&host, "PATCH", "/v1/functions/f", garbage).await.problem(400, "invalid-request");
    }
    let endless = format!(r#"{{"description": "{}"}}"#, "x".repeat(3 << 20));
    send(&host, "PATCH", "/v1/functions/f", &endless).await.problem(413, "configuration-too-large");
    assert_eq!(host.get("/v1/functions/f").await.json(), before);
}

#[tokio::test]
async fn instances_are_listed_shown_and_stopped() {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let probe = host.deploy("probe", PROBE, json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    assert_eq!(probe.instances().await, Vec::<Value>::new());
    let running = probe.script_in_background(json!([gate.step(), {"spin-ms": 5}]));
    let held = gate.arrival().await;
    let active = probe.instances().await.remove(0);
    assert_eq!((&active["state"], &active["inFlight"]), (&json!("active"), &json!(1)));
    assert_eq!(host.get("/v1/functions/probe").await.json()["instances"]["active"], 1);
    held.release().await;
    assert_eq!(running.await.unwrap().status, 200);
    let parked = probe.reaches("parked").await.remove(0);
    assert_eq!((&parked["id"], &parked["function"]), (&active["id"], &json!("probe")));
    assert_eq!((&parked["version"], &parked["inFlight"]), (&json!("LATEST"), &json!(0)));
    assert_eq!((&parked["requests"], &parked["windows"]), (&json!(1), &json!(1)));
    assert!(parked["generation"].as_u64() > active["generation"].as_u64(), "{parked}");
    assert!(parked["since"].as_str() >= active["since"].as_str(), "{parked}");
    assert!(parked["memoryBytes"].as_u64().unwrap() > 1 << 16, "{parked}");
    assert!(parked["executedMs"].as_f64().unwrap() >= 4.0, "{parked}");
    let counts = host.get("/v1/functions/probe").await.json()["instances"].clone();
    assert_eq!((&counts["parked"], &counts["active"]), (&json!(1), &json!(0)));

    let path = format!("/v1/instances/{}", parked["id"].as_str().unwrap());
    assert_eq!(host.get(&path).await.json(), parked);
    assert_eq!(host.post(&format!("{path}/stop")).await.status, 202);
    probe.is_gone().await;
    assert_eq!(probe.logs("pre-stop ", 1).await, 1, "it stopped in order");
    host.get(&path).await.problem(404, "instance-not-found");
}

#[tokio::test]
async fn a_log_is_read_from_its_end_and_followed_as_it_grows() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({"freezeAfterMs": 60_000})).await;
    assert_eq!(probe.script(json!([{"print": "one"}, {"eprint": "two"}, {"print": "three"}])).await.status, 200);
    let tail = host.get("/v1/functions/probe/logs?tail=2").await.json()["lines"].clone();
    assert_eq!(texts(tail.as_array().unwrap()), ["two", "three"]);
    assert_eq!((&tail[0]["stream"], &tail[1]["stream"]), (&json!("stderr"), &json!("stdout")));
    let gap = tail[1]["sequence"].as_u64().unwrap() - tail[0]["sequence"].as_u64().unwrap();
    assert_eq!(gap, 1);

    let url = format!("{}/v1/functions/probe/logs?follow=true&tail=1", host.admin);
    let mut stream = host.client.get(url).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(next_line(&mut stream).await["text"], "three", "it begins with the newest lines");
    for text in ["four", "five"] {
        assert_eq!(probe.script(json!([{"print": text}])).await.status, 200);
        let line = next_line(&mut stream).await;
        assert_eq!((&line["text"], &line["stream"]), (&json!(text), &json!("stdout")), "{line}");
    }
    host.get("/v1/functions/probe/logs?tail=many").await.problem(400, "invalid-request");
    let detail = host.get("/v1/functions/probe/logs?lines=5").await.problem(400, "invalid-request");
    assert!(detail.contains("`lines`"), "{detail}");
    host.signal(Signal::TERM);
    let rest = timeout(PATIENCE, async { while let Ok(Some(_)) = stream.chunk().await {} }).await;
    assert!(rest.is_ok(), "a follower does not hold up the end");
    assert!(host.ended().await.0.success());
}

#[tokio::test]
async fn a_question_about_usage_that_makes_no_sense_is_refused_with_the_reason() {
    let host = TestHost::start().await;
    for (query, word) in [
        ("?group=weekly", "weekly"),
        ("?from=yesterday", "yesterday"),
        ("?to=2026-13-01T00:00:00Z", "2026-13-01"),
        ("?function=a.b.c", "a.b.c"),
        ("?since=2026-01-01T00:00:00Z", "since"),
        ("/windows?limit=0", "`limit` is 0"),
        ("/windows?limit=10001", "`limit` is 10001"),
        ("/invocations?limit=many", "limit"),
        ("/invocations?after=nonsense", "`after`"),
        ("/invocations?group=day", "group"),
    ] {
        let detail = host.get(&format!("/v1/usage{query}")).await.problem(400, "invalid-request");
        assert!(detail.contains(word), "{query}: {detail}");
    }
    for query in ["", "?group=function", "?group=instance", "?group=hour", "?group=day", "?group=none"] {
        assert_eq!(host.get(&format!("/v1/usage{query}")).await.json()["groups"], json!([]), "{query}");
    }
    let in_vain = host.get("/v1/usage?function=nobody&from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z").await;
    assert_eq!(in_vain.json()["total"]["requests"], 0, "{in_vain:?}");
}

#[tokio::test]
async fn metrics_are_readable_by_prometheus() {
    let host = TestHost::start().await;
    let small = deploy_small(&host, "small", json!({})).await;
    assert_eq!(small.invoke("").await.status, 200);
    small.reaches("parked").await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let reply = host.client.get(format!("{}/metrics", host.admin)).header("accept", accept).send().await.unwrap();
    let reply = Reply::of(reply).await;
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"));
    let mut families = BTreeSet::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let words: Vec<&str> = rest.splitn(3, ' ').collect();
            assert!(matches!(words[0], "HELP" | "TYPE" | "UNIT") && words.len() == 3, "{line}");
            families.insert(words[1].to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("dormouse_"), "{line}");
        assert!(families.iter().any(|family| name.starts_with(family)), "{name} has no description");
        assert!(series == name || series.ends_with('}'), "{line}");
    }
    assert!(families.len() >= 5, "{families:?}");
    assert_eq!(host.metric(r#"dormouse_requests_total{function="small",code="ok",start="cold"}"#).await, 1.0, "{text}");
}

#[tokio::test]
async fn a_draining_host_is_alive_but_not_ready() {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let probe = host.deploy("probe", PROBE, json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    assert_eq!(host.get("/readyz").await.text(), "ready\n");
    let running = probe.script_in_background(json!([gate.step()]));
    let held = gate.arrival().await;
    host.signal(Signal::TERM);
    eventually("the drain", async || match host.get("/readyz").await {
        reply if reply.status == 503 => Ok(reply),
        reply => Err(format!("{reply:?}")),
    })
    .await
    .problem(503, "host-draining");
    assert_eq!(host.get("/healthz").await.text(), "ok\n");
    held.release().await;
    assert_eq!(running.await.unwrap().status, 200);
    assert!(host.ended().await.0.success());
}

#[tokio::test]
async fn the_openapi_document_is_sound_and_all_of_it_is_served() {
    let host = TestHost::start().await;
    let yearly = json!({"triggers": {"yearly": {"timer": {"cron": "0 0 1 1 *"}}}});
    let small = deploy_small(&host, "small", yearly).await;
    assert_eq!(small.invoke("").await.status, 200);
    let instance = small.reaches("parked").await[0]["id"].as_str().unwrap().to_owned();
    // So that the same identifier names an invocation too.
    let handed = small.request("").header("dormouse-invocation-type", "async");
    assert_eq!(handed.header("dormouse-invocation-id", &instance).send().await.unwrap().status(), 202);
    eventually("its end", async || {
        let view = host.get(&format!("/v1/functions/small/invocations/{instance}")).await.json();
        if view["state"] == "succeeded" { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
    let document = host.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    check_references(&document, &document);

    let (mut operations, mut ids) = (Vec::new(), BTreeSet::new());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
            let named = operation["parameters"].as_array().into_iter().flatten();
            let named = named.filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(named, path.matches('{').count(), "{method} {path}: every part of the path is described");
            assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}: its identifier is another's");
            operations.push((method.to_uppercase(), path.clone()));
        }
    }
    // Stopping and deleting come last: the others need something to look at.
    operations.sort_by_key(|(method, path)| (method == "DELETE", path.ends_with("/stop"), path.clone()));
    for (method, path) in &operations {
        let concrete = path.replace("{name}", "small").replace("{id}", &instance).replace("{trigger}", "yearly");
        let reply = send(&host, method, &concrete, "{}").await;
        assert!(!matches!(reply.status, 404 | 405 | 500), "{method} {path}: {reply:?}");
    }
    let promised = [
        ("PUT", "/v1/functions/{name}/code"),
        ("GET", "/v1/functions/{name}"),
        ("PATCH", "/v1/functions/{name}"),
        ("DELETE", "/v1/functions/{name}"),
        ("GET", "/v1/functions"),
        ("GET", "/v1/functions/{name}/instances"),
        ("GET", "/v1/instances/{id}"),
        ("POST", "/v1/functions/{name}/suspend"),
        ("POST", "/v1/functions/{name}/resume"),
        ("POST", "/v1/instances/{id}/stop"),
        ("GET", "/v1/functions/{name}/logs"),
        ("GET", "/v1/usage"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    ];
    for (method, path) in promised {
        assert!(
            operations.iter().any(|(other, at)| (other.as_str(), at.as_str()) == (method, path)),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn with_a_token_only_its_bearer_is_let_in() {
    let host = TestHost::builder().variable("DORMOUSE_ADMIN_TOKEN", "open sesame").start().await;
    let with = async |path: &str, authorization: Option<&str>| {
        let request = host.client.get(format!("{}{path}", host.admin));
        let request = match authorization {
            Some(text) => request.header("Authorization", text),
            None => request,
        };
        Reply::of(request.send().await.unwrap()).await
    };
    let wrong = [None, Some("Bearer open"), Some("Bearer open sesame!"), Some("open sesame"), Some("Basic b3Blbg==")];
    for path in ["/v1/functions", "/metrics", "/openapi.json", "/v1/usage", "/nowhere"] {
        for authorization in wrong {
            let reply = with(path, authorization).await;
            let detail = reply.problem(401, "unauthorized");
            assert!(!detail.contains("sesame"), "{detail}");
            assert_eq!(reply.header("www-authenticate"), "Bearer", "{path}");
        }
    }
    assert_eq!(with("/v1/functions", Some("Bearer open sesame")).await.status, 200);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(with(path, None).await.status, 200, "supervisors need no token");
    }
    let deployed = host.put_code("f", Small::PLAIN.component(), &json!({})).await;
    deployed.problem(401, "unauthorized");
    assert!(!host.log().contains("sesame"), "the token is in the log");
}

#[tokio::test]
async fn web_pages_of_other_origins_cannot_steer_a_host_without_a_token() {
    let host = TestHost::start().await;
    deploy_small(&host, "f", json!({})).await;
    let port = host.admin.rsplit(':').next().unwrap().to_owned();
    let ask = async |path: &str, name: &str, value: String| {
        let request = host.client.delete(format!("{}{path}", host.admin)).header(name, value);
        Reply::of(request.send().await.unwrap()).await
    };
    for (name, value) in [
        ("Host", format!("evil.example:{port}")),
        ("Host", format!("127.0.0.1.evil.example:{port}")),
        ("Host", "localhost@evil.example".to_owned()),
        ("Origin", "http://evil.example".to_owned()),
        ("Origin", "null".to_owned()),
        ("Origin", "http://127.0.0.1:1".to_owned()),
        ("Origin", format!("https://127.0.0.1:{port}")),
    ] {
        ask("/v1/functions/f", name, value.clone()).await.problem(403, "forbidden");
        assert_eq!(host.get("/v1/functions/f").await.status, 200, "{name}: {value}");
    }
    let deleted = ask("/v1/functions/f", "Origin", format!("http://127.0.0.1:{port}")).await;
    assert_eq!(deleted.status, 204, "its own pages may");
}

#[tokio::test]
async fn a_suspended_function_is_suspended_after_a_restart_too() {
    let host = TestHost::start().await;
    deploy_small(&host, "f", json!({"queueTimeoutMs": 50})).await;
    host.order("f", "suspend").await;
    let host = host.restart().await;
    let function = host.function("f");
    assert_eq!(host.get("/v1/functions/f").await.json()["suspended"], true);
    function.invoke("").await.problem(429, "function-busy");
    host.order("f", "resume").await;
    let host = host.kill_and_restart().await;
    assert_eq!(host.get("/v1/functions/f").await.json()["suspended"], false);
    assert_eq!(host.function("f").invoke("").await.status, 200);
}

#[tokio::test]
async fn instances_are_replaced_only_if_the_change_matters_to_them() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let count = async || probe.script(json!(["count"])).await.results()[0].clone();
    assert_eq!(count().await, 1);
    for patch in [json!({"description": "new"}), json!({"tags": {"team": "a"}}), json!({"memoryMb": 128}), json!({})] {
        let reply = probe.configure(patch.clone()).await;
        assert_eq!((reply.status, &reply.json()["revision"]), (200, &json!(1)), "{reply:?}");
    }
    assert_eq!(count().await, 2, "the instance goes on");
    let reply = probe.configure(json!({"memoryMb": 256})).await;
    assert_eq!((reply.status, &reply.json()["revision"]), (200, &json!(2)), "{reply:?}");
    assert_eq!(count().await, 1, "a new instance, with more memory");
    assert_eq!(probe.logs("pre-stop ", 1).await, 1, "the old one stopped in order");
}

#[tokio::test]
async fn a_minimum_of_instances_is_parked_from_the_deployment_on() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({"minInstances": 2, "idleTimeoutMs": 1})).await;
    let kept = two_parked(&probe).await;
    assert!(kept.iter().all(|instance| instance["requests"] == 0), "{kept:?}");
    assert_eq!(probe.script(json!(["count"])).await.start(), "parked");
    let kept = two_parked(&probe).await;
    let first = kept[0]["id"].as_str().unwrap();
    assert_eq!(host.post(&format!("/v1/instances/{first}/stop")).await.status, 202);
    eventually("a replacement", async || {
        let now = two_parked(&probe).await;
        if now.iter().all(|instance| instance["id"] != first) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let host = host.kill_and_restart().await;
    two_parked(&host.function("probe")).await;
}

async fn two_parked(function: &TestFunction) -> Vec<Value> {
    eventually("two parked instances", async || {
        let instances = function.instances().await;
        let parked = instances.iter().all(|instance| instance["state"] == "parked");
        if parked && instances.len() == 2 { Ok(instances) } else { Err(format!("{instances:?}")) }
    })
    .await
}

async fn deploy_small(host: &TestHost, name: &str, settings: Value) -> TestFunction {
    let reply = host.put_code(name, Small::PLAIN.component(), &settings).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    host.function(name)
}

async fn send(host: &TestHost, method: &str, path: &str, body: &str) -> Reply {
    let request = host.client.request(method.parse().unwrap(), format!("{}{path}", host.admin)).body(body.to_owned());
    Reply::of(request.send().await.expect("the admin plane answers")).await
}

async fn names(host: &TestHost) -> Vec<String> {
    let list = host.get("/v1/functions").await.json();
    let functions = list["functions"].as_array().expect("functions");
    functions.iter().map(|function| function["name"].as_str().expect("a name").to_owned()).collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["text"].as_str().expect("a text")).collect()
}

/// The next server-sent event that carries a line.
async fn next_line(stream: &mut reqwest::Response) -> Value {
    let mut text = String::new();
    let read = async {
        loop {
            let chunk = stream.chunk().await.expect("the stream goes on").expect("the stream has not ended");
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
            if let Some(data) = text.strip_suffix("\n\n").and_then(|event| event.strip_prefix("data:")) {
                return serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
            }
        }
    };
    timeout(PATIENCE, read).await.expect("a line comes in time")
}

/// Every `$ref` leads to something.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| check_references(value, document));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(value, document)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
