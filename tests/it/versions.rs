//! Revisions, versions and aliases; that instances follow what the catalog says; and that nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered};
use serde_json::{Value, json};

use crate::support::{Caller, Gate, Kind, Reply, TestFunction, TestHost, eventually};
use tests::text::Small;

/// Small functions that can be told apart: each answers with eight of its letter.
const A: Small = Small { body: "(i64.store (i32.const 32) (i64.const 0x4141414141414141))", ..Small::PLAIN };
const B: Small = Small { body: "(i64.store (i32.const 32) (i64.const 0x4242424242424242))", ..Small::PLAIN };
const C: Small = Small { body: "(i64.store (i32.const 32) (i64.const 0x4343434343434343))", ..Small::PLAIN };

async fn deploy(host: &TestHost, name: &str, small: &Small) -> Value {
    let reply = host.put_code(name, small.component(), &json!({})).await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    reply.json()
}

/// A request to the admin plane about a function.
async fn admin(host: &TestHost, method: &str, path: &str, body: Value) -> Reply {
    let method = method.parse().expect("a method");
    let request = host.client.request(method, format!("{}/v1/functions/{path}", host.admin));
    let request = if body.is_null() { request } else { request.body(body.to_string()) };
    Reply::of(request.send().await.expect("the admin plane answers")).await
}

/// Publishes `LATEST`; returns the number.
async fn publish(host: &TestHost, name: &str) -> String {
    let reply = admin(host, "POST", &format!("{name}/versions"), Value::Null).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["version"].as_str().expect("a number").to_owned()
}

async fn set_alias(host: &TestHost, name: &str, alias: &str, body: Value) {
    let reply = admin(host, "PUT", &format!("{name}/aliases/{alias}"), body).await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
}

/// What the function answers under a qualifier.
async fn ask(function: &TestFunction, qualifier: &str) -> Reply {
    Reply::of(function.request_to(qualifier, "").send().await.expect("the data plane answers")).await
}

/// The letter that a small function answers with.
async fn letter(function: &TestFunction, qualifier: &str) -> String {
    let reply = ask(function, qualifier).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.text()[..1].to_owned()
}

#[tokio::test]
async fn a_version_stays_what_was_published_whatever_is_deployed_later() {
    let host = TestHost::start().await;
    let f = host.function("f");
    let deployed = deploy(&host, "f", &A).await;
    assert_eq!(deployed.get("published"), None);
    let reply = admin(&host, "POST", "f/versions", json!({"description": "first"})).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let first = reply.json();
    assert_eq!((&first["version"], &first["description"]), (&json!("1"), &json!("first")));
    assert_eq!((&first["revision"], &first["sha256"]), (&deployed["revision"], &deployed["sha256"]));
    assert_eq!(host.get("/v1/functions/f").await.json()["published"], "1");

    deploy(&host, "f", &B).await;
    f.configure(json!({"memoryMb": 256})).await;
    assert_eq!(publish(&host, "f").await, "2");
    let host = host.restart().await;
    let f = host.function("f");
    assert_eq!([letter(&f, "1").await, letter(&f, "2").await, letter(&f, "LATEST").await], ["A", "B", "B"]);
    assert_eq!(f.invoke("").await.text(), "BBBBBBBB", "without a qualifier it is LATEST");

    let list = admin(&host, "GET", "f/versions", Value::Null).await.json();
    let numbers: Vec<&Value> = list["versions"].as_array().unwrap().iter().map(|version| &version["version"]).collect();
    assert_eq!(numbers, ["2", "1"], "the newest first");
    let one = admin(&host, "GET", "f/versions/1", Value::Null).await.json();
    assert_eq!((&one["settings"]["memoryMb"], &one["description"]), (&json!(128), &json!("first")));
    let two = admin(&host, "GET", "f/versions/2", Value::Null).await.json();
    assert_eq!(two["settings"]["memoryMb"], 256);
}

#[tokio::test]
async fn what_cannot_be_published_or_deleted_is_refused_in_words() {
    let host = TestHost::start().await;
    admin(&host, "POST", "nobody/versions", Value::Null).await.problem(404, "function-not-found");
    deploy(&host, "f", &A).await;
    assert_eq!(publish(&host, "f").await, "1");
    let detail = admin(&host, "POST", "f/versions", Value::Null).await.problem(409, "version-unchanged");
    assert!(detail.contains("as version 1"), "{detail}");
    // Neither a description nor a tag is part of a revision.
    host.function("f").configure(json!({"description": "new"})).await;
    admin(&host, "POST", "f/versions", Value::Null).await.problem(409, "version-unchanged");

    set_alias(&host, "f", "prod", json!({"version": "1"})).await;
    let detail = admin(&host, "DELETE", "f/versions/1", Value::Null).await.problem(409, "version-in-use");
    assert!(detail.contains("`prod`"), "{detail}");
    deploy(&host, "f", &B).await;
    assert_eq!(publish(&host, "f").await, "2");
    set_alias(&host, "f", "prod", json!({"version": "2", "weights": {"1": 0.5}})).await;
    admin(&host, "DELETE", "f/versions/1", Value::Null).await.problem(409, "version-in-use");
    set_alias(&host, "f", "prod", json!({"version": "2"})).await;
    assert_eq!(admin(&host, "DELETE", "f/versions/1", Value::Null).await.status, 204);
    admin(&host, "DELETE", "f/versions/1", Value::Null).await.problem(404, "version-not-found");
    admin(&host, "GET", "f/versions/1", Value::Null).await.problem(404, "version-not-found");
    ask(&host.function("f"), "1").await.problem(404, "function-not-found");
    for bad in ["0", "01", "x", "-1"] {
        let detail = admin(&host, "GET", &format!("f/versions/{bad}"), Value::Null).await.problem(400, "invalid-name");
        assert!(detail.contains("1, 2, 3"), "{bad}: {detail}");
    }
    let long = json!({"description": "x".repeat(1025)});
    admin(&host, "POST", "f/versions", long).await.problem(422, "settings-refused");
    admin(&host, "POST", "f/versions", json!({"descripton": "x"})).await.problem(400, "invalid-request");
}

#[tokio::test]
async fn aliases_that_make_no_sense_are_refused_in_words() {
    let host = TestHost::start().await;
    deploy(&host, "f", &A).await;
    publish(&host, "f").await;
    for (body, status, code, word) in [
        (json!({}), 422, "alias-refused", "`version` is missing"),
        (json!({"version": "2"}), 404, "version-not-found", "version 2"),
        (json!({"version": "1", "weights": {"2": 0.1}}), 404, "version-not-found", "version 2"),
        (json!({"version": "1", "weights": {"1": 0.1}}), 422, "alias-refused", "version 1"),
        (json!({"version": "LATEST"}), 400, "invalid-name", "`LATEST`"),
        (json!(["1"]), 400, "invalid-request", "must be an object"),
        (json!({"version": 1}), 400, "invalid-request", "string"),
        (json!({"version": "1", "wieghts": {}}), 400, "invalid-request", "wieghts"),
    ] {
        let reply = admin(&host, "PUT", "f/aliases/prod", body.clone()).await;
        let detail = reply.problem(status, code);
        assert!(detail.contains(word), "{body}: {detail}");
    }
    for name in ["1", "LATEST", "latest", "a.b", "-a"] {
        admin(&host, "PUT", &format!("f/aliases/{name}"), json!({"version": "1"})).await.problem(400, "invalid-name");
    }
    deploy(&host, "f", &B).await;
    publish(&host, "f").await;
    for weight in [json!(1.5), json!(-0.1)] {
        let body = json!({"version": "1", "weights": {"2": weight}});
        let detail = admin(&host, "PUT", "f/aliases/prod", body).await.problem(422, "alias-refused");
        assert!(detail.contains("0 to 1"), "{detail}");
    }
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/rollback")] {
        let reply = admin(&host, method, &format!("f/aliases/nobody{path}"), Value::Null).await;
        assert!(reply.problem(404, "alias-not-found").contains("`nobody`"), "{method}");
    }
    ask(&host.function("f"), "prod").await.problem(404, "function-not-found");
}

#[tokio::test]
async fn versions_and_aliases_have_a_bound_that_is_a_setting() {
    let host = TestHost::builder().flag("--versions-max=2").flag("--aliases-max=1").start().await;
    for small in [&A, &B] {
        deploy(&host, "f", small).await;
        publish(&host, "f").await;
    }
    deploy(&host, "f", &C).await;
    let detail = admin(&host, "POST", "f/versions", Value::Null).await.problem(409, "too-many");
    assert!(detail.contains("2 versions") && detail.contains("versions-max"), "{detail}");
    set_alias(&host, "f", "one", json!({"version": "1"})).await;
    set_alias(&host, "f", "one", json!({"version": "2"})).await;
    let reply = admin(&host, "PUT", "f/aliases/two", json!({"version": "1"})).await;
    assert!(reply.problem(409, "too-many").contains("aliases-max"));
}

#[tokio::test]
async fn no_number_is_ever_used_again() {
    let mut host = TestHost::start().await;
    let (mut revisions, mut versions) = (BTreeSet::new(), Vec::new());
    for round in 0..6 {
        let revision = deploy(&host, "f", if round % 2 == 0 { &A } else { &B }).await["revision"].as_u64().unwrap();
        assert!(revisions.insert(revision), "revision {revision} again");
        versions.push(publish(&host, "f").await);
        match round {
            0 => assert_eq!(host.function("f").delete().await.status, 204),
            1 => {
                let path = format!("f/versions/{}", versions[1]);
                assert_eq!(admin(&host, "DELETE", &path, Value::Null).await.status, 204);
            }
            2 => host = host.restart().await,
            3 => {
                assert_eq!(host.function("f").delete().await.status, 204);
                host = host.kill_and_restart().await;
            }
            _ => host = host.kill_and_restart().await,
        }
    }
    assert_eq!(versions, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn publishing_starts_nothing_and_each_request_learns_which_version_it_asked_for() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let script = json!({"do": ["count", "context"]}).to_string();
    let run = async |qualifier: &str| {
        let request = probe.request_to(qualifier, script.clone());
        Reply::of(request.send().await.unwrap()).await.results()
    };
    let first = run("LATEST").await;
    assert_eq!((&first[0], &first[1]["version"], &first[1]["attempt"]), (&json!(1), &json!("LATEST"), &json!(1)));
    publish(&host, "probe").await;
    set_alias(&host, "probe", "prod", json!({"version": "1"})).await;
    for (count, qualifier, version) in [(2, "1", "1"), (3, "prod", "1"), (4, "LATEST", "LATEST")] {
        let seen = run(qualifier).await;
        assert_eq!((&seen[0], &seen[1]["version"]), (&json!(count), &json!(version)), "{qualifier}: the same instance");
    }
    let shown = probe.reaches("parked").await;
    assert_eq!((shown.len(), &shown[0]["version"]), (1, &json!("1")), "the instance goes by its number now");
    let records = eventually("four records", async || {
        let records = host.invocations().await;
        if records.len() == 4 { Ok(records) } else { Err(format!("{records:?}")) }
    })
    .await;
    let told: Vec<_> = records.iter().map(|record| record["version"].as_str().unwrap()).collect();
    assert_eq!(told, ["LATEST", "1", "1", "LATEST"]);
    assert!(records.iter().all(|record| record["calledBy"] == "data" && record["attempt"] == 1), "{records:?}");
}

#[tokio::test]
async fn the_shares_of_an_alias_are_right_and_an_affinity_stays_on_its_side() {
    const REQUESTS: usize = 10_000;
    let host = TestHost::start().await;
    let f = host.function("f");
    for small in [&A, &B, &C] {
        deploy(&host, "f", small).await;
        publish(&host, "f").await;
    }
    set_alias(&host, "f", "canary", json!({"version": "1", "weights": {"2": 0.1, "3": 0.25}})).await;
    let counts: BTreeMap<String, usize> = stream::iter(0..REQUESTS)
        .map(|_| letter(&f, "canary"))
        .buffer_unordered(8)
        .fold(BTreeMap::new(), async |mut counts, letter| {
            *counts.entry(letter).or_default() += 1;
            counts
        })
        .await;
    for (letter, share) in [("A", 0.65), ("B", 0.1), ("C", 0.25)] {
        // Five standard deviations: chance alone exceeds them once in 1.7 million runs.
        let (expected, requests) = (share * REQUESTS as f64, REQUESTS as f64);
        let bound = 5.0 * (requests * share * (1.0 - share)).sqrt();
        let found = counts[letter] as f64;
        assert!((found - expected).abs() < bound, "{letter}: {found}, not {expected} ± {bound}");
    }

    let with_affinity = async |value: usize| {
        let request = f.request_to("canary", "").header("Dormouse-Affinity", format!("user-{value}"));
        Reply::of(request.send().await.unwrap()).await.text()
    };
    let mut sides = Vec::new();
    for value in 0..100 {
        sides.push(with_affinity(value).await);
    }
    for letter in ["AAAAAAAA", "BBBBBBBB", "CCCCCCCC"] {
        assert!(sides.iter().any(|side| side == letter), "nobody got {letter}");
    }
    let host = host.restart().await;
    let f = host.function("f");
    for (value, side) in sides.iter().enumerate() {
        let request = f.request_to("canary", "").header("Dormouse-Affinity", format!("user-{value}"));
        assert_eq!(Reply::of(request.send().await.unwrap()).await.text(), *side, "user-{value}, after a restart too");
    }
}

#[tokio::test]
async fn a_rollback_goes_back_through_what_the_alias_named() {
    let host = TestHost::start().await;
    let f = host.function("f");
    for small in [&A, &B, &C] {
        deploy(&host, "f", small).await;
        let version = publish(&host, "f").await;
        set_alias(&host, "f", "prod", json!({"version": version})).await;
    }
    let roll_back = async || admin(&host, "POST", "f/aliases/prod/rollback", Value::Null).await;
    assert_eq!(letter(&f, "prod").await, "C");
    assert_eq!(roll_back().await.json()["version"], "2");
    assert_eq!(letter(&f, "prod").await, "B");
    assert_eq!(roll_back().await.json()["version"], "1");
    assert_eq!(letter(&f, "prod").await, "A");
    let detail = roll_back().await.problem(422, "alias-refused");
    assert!(detail.contains("no other version"), "{detail}");
    // A version that is gone is passed over, and so are shares.
    for (version, weights) in [("2", json!({})), ("3", json!({"1": 0.5}))] {
        set_alias(&host, "f", "prod", json!({"version": version, "weights": weights})).await;
    }
    assert_eq!(admin(&host, "DELETE", "f/versions/2", Value::Null).await.status, 204);
    let back = roll_back().await.json();
    assert_eq!((&back["version"], &back["weights"]), (&json!("1"), &json!({})));
    assert_eq!(admin(&host, "DELETE", "f/aliases/prod", Value::Null).await.status, 204);
    ask(&f, "prod").await.problem(404, "function-not-found");
    assert_eq!(letter(&f, "1").await, "A", "the version stays");
}

#[tokio::test]
async fn http_functions_are_reached_under_a_qualifier_and_their_links_stay_under_it() {
    let host = TestHost::start().await;
    let http = Kind::Http02.deploy(&host, "http", json!({})).await;
    publish(&host, "http").await;
    set_alias(&host, "http", "prod", json!({"version": "1"})).await;
    let fetch =
        async |path: &str| Reply::of(host.client.get(format!("{}{path}", host.data)).send().await.unwrap()).await;
    for (path, seen, version) in [
        ("/fn/http/about/x", "/about/x", "LATEST"),
        ("/fn/http:prod/about/x", "/about/x", "1"),
        ("/fn/http:1/about/x?y=z", "/about/x?y=z", "1"),
        ("/fn/http:LATEST/about/", "/about/", "LATEST"),
        ("/fn/http/about/x?qualifier=prod", "/about/x?qualifier=prod", "1"),
    ] {
        let reply = fetch(path).await;
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        let about = reply.json();
        assert_eq!(about["path"], seen, "{path}");
        let fields = about["fields"].as_array().unwrap();
        let field = fields.iter().find(|field| field[0] == "x-fc-version-id").unwrap();
        assert_eq!(field[1], version, "{path}");
    }
    assert!(fetch("/fn/http:nobody/").await.problem(404, "function-not-found").contains("`nobody`"));
    assert!(fetch("/fn/http:/").await.problem(404, "function-not-found").contains("``"));
    fetch("/fn/http:prod/?qualifier=1").await.problem(400, "invalid-request");
    http.reaches("parked").await;
}

/// Calls a function again and again under `prod`, on some connections, until it is told to stop; counts what went wrong.
struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: FuturesUnordered<tokio::task::JoinHandle<Vec<String>>>,
}

impl Traffic {
    fn start(request: impl Fn() -> reqwest::RequestBuilder + Clone + Send + 'static) -> Traffic {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let caller = |_| {
            let (request, stop, answered) = (request.clone(), stop.clone(), answered.clone());
            tokio::task::spawn(async move {
                let mut faults = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match request().send().await {
                        Ok(response) if response.status().is_success() => drop(response.bytes().await.unwrap()),
                        Ok(response) => faults.push(format!("{:?}", Reply::of(response).await)),
                        Err(error) => faults.push(format!("{error:?}")),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                faults
            })
        };
        let callers = (0..4).map(caller).collect();
        Traffic { stop, answered, callers }
    }

    /// Waits until some more requests were answered.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("more traffic", async || {
            let now = self.answered.load(Ordering::Relaxed);
            if now >= before + 8 { Ok(()) } else { Err(format!("{before}, then {now}")) }
        })
        .await;
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(faults) = self.callers.next().await {
            assert_eq!(faults.unwrap(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn moves_and_deployments_cost_no_request_anything() {
    let host = TestHost::start().await;
    // One function of each protocol, with two versions each, and an upload under way that takes as long as all of this.
    let event = host.deploy("event", "guest-probe", json!({"memoryMb": 64})).await;
    let http = Kind::Http03.deploy(&host, "http", json!({"memoryMb": 64, "timeoutMs": 600_000})).await;
    for name in ["event", "http"] {
        publish(&host, name).await;
        host.function(name).configure(json!({"memoryMb": 65})).await;
        publish(&host, name).await;
        set_alias(&host, name, "prod", json!({"version": "1"})).await;
    }
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 1024;
    let (chunks, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
    let upload = http.fetch("POST", "/count").body(reqwest::Body::wrap_stream(body));
    let upload = tokio::task::spawn(async move { Reply::of(upload.send().await.unwrap()).await });
    chunks.send(Ok(vec![b'x'; CHUNK])).await.unwrap();

    let (events, requests) = (event.clone(), http.clone());
    let event_traffic = Traffic::start(move || events.request_to("prod", json!({"do": ["count"]}).to_string()));
    let http_traffic = Traffic::start(move || requests.fetch("GET", "/about/x?qualifier=prod"));
    let latest = event.clone();
    let latest_traffic = Traffic::start(move || latest.request(json!({"do": ["count"]}).to_string()));
    for round in 0..24 {
        for name in ["event", "http"] {
            let (version, other) = if round % 2 == 0 { ("2", "1") } else { ("1", "2") };
            set_alias(&host, name, "prod", json!({"version": version, "weights": {other: 0.3}})).await;
            if round % 4 == 0 {
                let reply = host.function(name).configure(json!({"memoryMb": 66 + round})).await;
                assert_eq!(reply.status, 200, "{reply:?}");
            }
        }
        chunks.send(Ok(vec![b'x'; CHUNK])).await.unwrap();
        event_traffic.goes_on().await;
        http_traffic.goes_on().await;
        latest_traffic.goes_on().await;
    }
    for _ in 25..CHUNKS {
        chunks.send(Ok(vec![b'x'; CHUNK])).await.unwrap();
    }
    drop(chunks);
    for traffic in [event_traffic, http_traffic, latest_traffic] {
        traffic.stop().await;
    }
    let uploaded = upload.await.unwrap();
    assert_eq!(uploaded.status, 200, "{uploaded:?}");
    assert_eq!(uploaded.json()["bytes"], CHUNK * CHUNKS, "the upload of its beginning's revision");
}

#[tokio::test]
async fn an_upload_is_run_by_the_revision_it_was_meant_for() {
    let host = TestHost::start().await;
    let event = host.deploy("f", "guest-probe", json!({})).await;
    let script = json!({"do": ["count"]}).to_string();
    let mut slow = Caller::connect(&host.data).await;
    let (early, late) = script.split_at(5);
    slow.write(format!("POST /invoke/f HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{early}", script.len())).await;
    // The host has the request's head once it has answered one that was sent after it.
    assert_eq!(event.script(json!(["count"])).await.status, 200);
    let replaced = host.put_code("f", tests::component("guest-http-02"), &json!({})).await;
    assert_eq!(replaced.json()["exports"]["protocol"], "wasi:http@0.2", "{replaced:?}");
    let fetched = Reply::of(host.function("f").fetch("GET", "/about/x").send().await.unwrap()).await;
    assert_eq!(fetched.status, 201, "the new code serves HTTP: {fetched:?}");
    slow.write(late).await;
    assert_eq!(slow.reply().await, 200, "the old code gets the event that was begun for it");
    assert_eq!(host.metric("dormouse_instance_crashes_total").await, 0.0);
}

#[tokio::test]
async fn a_function_that_is_deleted_while_its_first_request_prepares_it_leaves_nothing_behind() {
    let host = TestHost::start().await;
    let f = host.function("f");
    for round in 0..25 {
        deploy(&host, "f", &A).await;
        let first = {
            let f = f.clone();
            tokio::task::spawn(async move { f.invoke("").await })
        };
        let deleted = f.delete().await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        let first = first.await.unwrap();
        assert!(matches!(first.status, 200 | 404), "{first:?}");
        deploy(&host, "f", &B).await;
        assert_eq!(f.invoke("").await.text(), "BBBBBBBB", "round {round}: old code was served");
        f.delete().await;
    }
    eventually("no instances", async || {
        let instances = host.metric("dormouse_instances{").await;
        if instances == 0.0 { Ok(()) } else { Err(instances.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_function_that_is_suspended_while_its_first_request_prepares_it_is_suspended() {
    let host = TestHost::start().await;
    for round in 0..25 {
        let name = format!("f{round}");
        let reply = host.put_code(&name, A.component(), &json!({"queueTimeoutMs": 50})).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let f = host.function(&name);
        let first = {
            let f = f.clone();
            tokio::task::spawn(async move { f.invoke("").await })
        };
        host.order(&name, "suspend").await;
        f.invoke("").await.problem(429, "function-busy");
        host.order(&name, "resume").await;
        // It was answered before, stood still in the middle until now, or waited too long.
        let first = first.await.unwrap();
        assert!(matches!(first.status, 200 | 429), "{first:?}");
        assert_eq!(f.invoke("").await.status, 200);
    }
}

#[tokio::test]
async fn instances_are_kept_for_latest_and_for_what_an_alias_names() {
    let host = TestHost::start().await;
    let settings = json!({"minInstances": 1, "idleTimeoutMs": 1});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    publish(&host, "probe").await;
    let kept = async |versions: &[&str]| {
        eventually(&format!("instances of {versions:?}"), async || {
            let instances = probe.instances().await;
            let mut found: Vec<_> = instances.iter().map(|instance| instance["version"].as_str().unwrap()).collect();
            found.sort_unstable();
            let parked = instances.iter().all(|instance| instance["state"] == "parked");
            if parked && found == versions { Ok(()) } else { Err(format!("{instances:?}")) }
        })
        .await;
    };
    kept(&["1"]).await;
    probe.configure(json!({"memoryMb": 256})).await;
    kept(&["LATEST"]).await;
    set_alias(&host, "probe", "prod", json!({"version": "1"})).await;
    kept(&["1", "LATEST"]).await;
    let host = host.restart().await;
    let probe = host.function("probe");
    eventually("both after a restart", async || {
        let states = probe.states().await;
        if states == ["parked", "parked"] { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    assert_eq!(admin(&host, "DELETE", "probe/aliases/prod", Value::Null).await.status, 204);
    eventually("one without the alias", async || {
        let states = probe.states().await;
        if states == ["parked"] { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_revision_without_a_name_finishes_its_requests_runs_its_pre_stops_and_goes() {
    let (host, gate) = (TestHost::start().await, Gate::closed().await);
    let settings = json!({"allowedOutboundHosts": ["127.0.0.1"]});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    publish(&host, "probe").await;
    probe.configure(json!({"memoryMb": 256})).await;
    let held = {
        let request = probe.request_to("1", json!({"do": [gate.step(), "count"]}).to_string());
        tokio::task::spawn(async move { Reply::of(request.send().await.unwrap()).await })
    };
    let arrived = gate.arrival().await;
    assert_eq!(admin(&host, "DELETE", "probe/versions/1", Value::Null).await.status, 204);
    let request = probe.request_to("1", "");
    Reply::of(request.send().await.unwrap()).await.problem(404, "function-not-found");
    assert_eq!(probe.states().await, ["active"], "it is still shown");
    arrived.release().await;
    assert_eq!(held.await.unwrap().status, 200);
    probe.is_gone().await;
    assert_eq!(probe.logs("pre-stop ", 1).await, 1);
}

#[tokio::test]
async fn a_disabled_function_refuses_with_its_reason_and_keeps_its_instances() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    assert_eq!(probe.script(json!(["count"])).await.results()[0], 1);
    let reply = admin(&host, "POST", "probe/disable", json!({"reason": "moving house"})).await;
    assert_eq!((reply.status, &reply.json()["disabled"]), (200, &json!("moving house")), "{reply:?}");
    let detail = probe.script(json!(["count"])).await.problem(403, "function-disabled");
    assert!(detail.contains("moving house"), "{detail}");
    assert_eq!(probe.reaches("parked").await.len(), 1);
    let host = host.kill_and_restart().await;
    let probe = host.function("probe");
    assert!(probe.script(json!([])).await.problem(403, "function-disabled").contains("moving house"));
    let reply = admin(&host, "POST", "probe/enable", Value::Null).await;
    assert_eq!((reply.status, reply.json().get("disabled").cloned()), (200, None), "{reply:?}");
    assert_eq!(probe.script(json!(["count"])).await.results()[0], 1);
    let reply = admin(&host, "POST", "probe/disable", Value::Null).await;
    assert_eq!(reply.status, 200, "a reason may be left out: {reply:?}");
    let long = json!({"reason": "x".repeat(1025)});
    admin(&host, "POST", "probe/disable", long).await.problem(422, "settings-refused");
}

#[tokio::test]
async fn a_pool_that_cannot_be_made_is_a_state_of_the_function() {
    let host = TestHost::start().await;
    deploy(&host, "well", &B).await;
    deploy(&host, "f", &A).await;
    let sha256 = host.get("/v1/functions/f").await.json()["sha256"].as_str().unwrap().to_owned();
    let (builder, state) = (host.same(), host.state_dir());
    host.signal(rustix::process::Signal::TERM);
    host.ended().await;
    // Somebody damages the component, and its compiled code is gone.
    std::fs::write(state.join(format!("components/{sha256}.wasm")), "damaged").unwrap();
    for folder in std::fs::read_dir(state.join("compiled")).unwrap().flatten() {
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            if file.file_name().to_string_lossy().starts_with(&sha256) {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    }
    let host = builder.start().await;
    assert_eq!(host.get("/v1/functions/f").await.json().get("fault"), None, "nobody has tried yet");
    host.function("f").invoke("").await.problem(503, "function-unavailable");
    let fault = host.get("/v1/functions/f").await.json()["fault"].as_str().unwrap().to_owned();
    assert!(fault.contains("damaged") && fault.contains("deploy it again"), "{fault}");
    assert!(host.log().contains("cannot start instances"), "{}", host.log());
    assert_eq!(host.function("well").invoke("").await.text(), "BBBBBBBB");
    let again = deploy(&host, "f", &A).await;
    assert_eq!(again.get("fault"), None);
    assert_eq!(host.function("f").invoke("").await.text(), "AAAAAAAA");
}

#[tokio::test]
async fn every_line_of_the_log_about_a_request_carries_its_identifier() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let request = probe.request(json!({"do": ["trap"]}).to_string()).header("X-Request-Id", "find-me");
    Reply::of(request.send().await.unwrap()).await.problem(502, "function-crashed");
    let log = host.log();
    let line = log.lines().find(|line| line.contains("crashed")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("find-me"), "{line}");
    // An operator's requests have one as well.
    let request = host.client.get(format!("{}/v1/functions/nobody", host.admin)).header("X-Request-Id", "mine");
    let reply = Reply::of(request.send().await.unwrap()).await;
    reply.problem(404, "function-not-found");
    assert_eq!(reply.json()["requestId"], "mine");
    assert!(!host.get("/v1/functions").await.header("dormouse-request-id").is_empty());
}

#[tokio::test]
async fn the_host_tells_where_callers_reach_functions() {
    let host = TestHost::start().await;
    let shown = host.get("/v1/host").await.json();
    assert_eq!(format!("http://{}", shown["dataAddress"].as_str().unwrap()), host.data);
    assert!(shown["version"].as_str().unwrap().starts_with("0."));
}

#[tokio::test]
async fn a_state_directory_of_the_version_before_opens_and_serves() {
    // Written by the host as it was before there were versions; functions had one revision each, counted by themselves.
    let builder = TestHost::builder();
    let fixture = tests::repository().join("tests/it/fixtures/state-1");
    for file in ["catalog.sqlite", "ledger.sqlite"] {
        std::fs::copy(fixture.join(file), builder.state_dir().join(file)).unwrap();
    }
    std::fs::create_dir(builder.state_dir().join("components")).unwrap();
    for file in std::fs::read_dir(fixture.join("components")).unwrap().flatten() {
        std::fs::copy(file.path(), builder.state_dir().join("components").join(file.file_name())).unwrap();
    }
    let host = builder.start().await;
    let shown = host.get("/v1/functions/old").await.json();
    assert_eq!((&shown["description"], &shown["tags"]), (&json!("from before"), &json!({"team": "a"})));
    assert_eq!((&shown["memoryMb"], &shown["lifecycle"]["preStop"]["timeoutMs"]), (&json!(256), &json!(7)));
    assert!(shown["revision"].as_u64().unwrap() > 3, "3 was a revision of this function then: {shown}");
    assert_eq!(host.get("/v1/functions/asleep").await.json()["suspended"], true);
    assert_eq!(host.function("old").invoke("").await.text(), "AAAAAAAA");
    eventually("the old bill and the new window", async || {
        let total = host.total().await;
        if total["requests"] == 4 { Ok(()) } else { Err(total.to_string()) }
    })
    .await;
    assert!(host.invocations().await.iter().all(|record| record["calledBy"] == "data" && record["attempt"] == 1));
    assert_eq!(publish(&host, "old").await, "1");
    let host = host.kill_and_restart().await;
    assert_eq!(letter(&host.function("old"), "1").await, "A");
}
