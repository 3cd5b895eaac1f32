//! Access keys on both planes, what operators may do with them, the audit log, and the hosts that `dormouse login` knows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::text::Small;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, Reply, TestFunction, TestHost, dormouse, eventually};

const ADMIN_TOKEN: &str = "open sesame";

/// A request to the admin plane with a key; none: with nothing.
async fn ask(host: &TestHost, key: Option<&str>, method: &str, path: &str, body: Value) -> Reply {
    let request = host.client.request(method.parse().expect("a method"), format!("{}{path}", host.admin));
    let request = if body.is_null() { request } else { request.body(body.to_string()) };
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    Reply::of(request.send().await.expect("the admin plane answers")).await
}

/// Makes a key as the host's first operator; returns its identifier and what callers send.
async fn create(host: &TestHost, wanted: Value) -> (String, String) {
    let reply = ask(host, Some(ADMIN_TOKEN), "POST", "/v1/keys", wanted).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let made = reply.json();
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

/// A key for functions.
async fn key(host: &TestHost, functions: &[&str], rights: &[&str]) -> String {
    create(host, json!({"functions": functions, "rights": rights})).await.1
}

/// Deploys a small function.
async fn deploy(host: &TestHost, name: &str, settings: Value) -> TestFunction {
    let url = format!("{}/v1/functions/{name}/code", host.admin);
    let request = host.client.put(url).header("Dormouse-Settings", settings.to_string());
    let reply = Reply::of(
        request.bearer_auth(ADMIN_TOKEN).body(Small::PLAIN.component()).send().await.expect("the admin plane answers"),
    )
    .await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    host.function(name)
}

async fn with_token() -> TestHost {
    TestHost::builder().variable("DORMOUSE_ADMIN_TOKEN", ADMIN_TOKEN).start().await
}

/// Invokes a function with a key.
async fn invoke(function: &TestFunction, key: &str) -> Reply {
    Reply::of(function.request("").bearer_auth(key).send().await.expect("the data plane answers")).await
}

#[tokio::test]
async fn a_function_that_asks_for_a_key_is_for_those_who_have_one_for_it() {
    let host = with_token().await;
    let shop = deploy(&host, "shop-cart", json!({"auth": "key"})).await;
    let open = deploy(&host, "open", json!({})).await;
    let (id, own) = create(&host, json!({"functions": ["shop-*"], "rights": ["invoke"]})).await;
    let detail = shop.invoke("").await.problem(401, "unauthorized");
    assert!(detail.contains("Authorization: Bearer KEY") && detail.contains("dormouse keys create"), "{detail}");
    assert_eq!(shop.invoke("").await.header("www-authenticate"), "Bearer");
    let reply = invoke(&shop, &own).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(invoke(&shop, ADMIN_TOKEN).await.status, 200, "the admin token is a key for everything");
    for (functions, rights) in [(["other"], ["invoke"]), (["shop-*"], ["read"]), (["shop-"], ["invoke"])] {
        let detail = invoke(&shop, &key(&host, &functions, &rights).await).await.problem(403, "forbidden");
        assert!(detail.contains("may not invoke function `shop-cart`"), "{detail}");
    }
    for wrong in ["dmk-1234", &format!("{id}.0000"), &format!("{own}0"), "dmk-0000000000000001.ab"] {
        let detail = invoke(&shop, wrong).await.problem(401, "unauthorized");
        assert!(!detail.contains(&own[24..]), "{detail}");
        // Whoever shows a key means it to be looked at.
        invoke(&open, wrong).await.problem(401, "unauthorized");
    }
    for foreign in ["eyJhbGciOi.x.y", "open sesam"] {
        invoke(&shop, foreign).await.problem(401, "unauthorized");
        assert_eq!(invoke(&open, foreign).await.status, 200, "it may be meant for the function");
    }
    let twice = shop.request("").header("Authorization", format!("Bearer {own}")).bearer_auth(&own);
    Reply::of(twice.send().await.unwrap()).await.problem(400, "invalid-request");
    // It is the function's setting, not a version's, and changes without new instances.
    let before = ask(&host, Some(ADMIN_TOKEN), "GET", "/v1/functions/open", Value::Null).await.json();
    assert_eq!((before.get("auth"), &before["open"]), (None, &json!(true)));
    let changed = ask(&host, Some(ADMIN_TOKEN), "PATCH", "/v1/functions/open", json!({"auth": "key"})).await.json();
    assert_eq!((&changed["auth"], &changed["open"]), (&json!("key"), &json!(false)));
    assert_eq!(changed["revision"], before["revision"]);
    open.invoke("").await.problem(401, "unauthorized");
    let wrong = ask(&host, Some(ADMIN_TOKEN), "PATCH", "/v1/functions/open", json!({"auth": "keys"})).await;
    assert!(wrong.problem(422, "settings-refused").contains("`none`"), "{wrong:?}");
    drop(host.kill_and_restart().await);
}

#[tokio::test]
async fn a_host_may_ask_for_keys_by_default_and_tells_strangers_nothing_then() {
    let builder = TestHost::builder().variable("DORMOUSE_ADMIN_TOKEN", ADMIN_TOKEN).flag("--auth=key");
    let host = builder.start().await;
    let closed = deploy(&host, "closed", json!({})).await;
    let open = deploy(&host, "open", json!({"auth": "none"})).await;
    let (closed, absent) = (closed.invoke("").await, host.function("absent").invoke("").await);
    let told = [closed, absent].map(|reply| reply.problem(401, "unauthorized"));
    assert_eq!(told[0].replace("closed", "absent"), told[1]);
    assert_eq!(open.invoke("").await.status, 200);
    let own = key(&host, &["*"], &["invoke"]).await;
    invoke(&host.function("absent"), &own).await.problem(404, "function-not-found");
}

#[tokio::test]
async fn a_key_is_for_the_host_and_other_tokens_are_for_the_function() {
    let host = TestHost::start().await;
    host.deploy("http", "guest-http-02", json!({})).await;
    let made = host.client.post(format!("{}/v1/keys", host.admin));
    let made = made.body(json!({"functions": ["*"], "rights": ["invoke"]}).to_string()).send().await.unwrap();
    let own = Reply::of(made).await.json()["token"].as_str().unwrap().to_owned();
    let seen = async |token: &str| {
        let reply =
            Reply::of(host.function("http").fetch("GET", "/about").bearer_auth(token).send().await.unwrap()).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let fields = reply.json()["fields"].as_array().unwrap().clone();
        let field = fields.iter().find(|field| field[0] == "authorization");
        field.map(|field| field[1].as_str().unwrap().to_owned())
    };
    assert_eq!(seen("its-own.token").await.as_deref(), Some("Bearer its-own.token"));
    assert_eq!(seen(&own).await, None, "a function never gets its callers' keys");
    for odd in [
        own.clone(),
        format!("Bearer\t{own}"),
        format!("Token {own}"),
        format!("Bearer \"{own}\""),
        format!("Bearer {own}\u{e9}"),
    ] {
        let request = host.client.get(host.function("http").url("/about"));
        let value = reqwest::header::HeaderValue::from_bytes(odd.as_bytes()).unwrap();
        let reply = Reply::of(request.header("Authorization", value).send().await.unwrap()).await;
        reply.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn revoked_rotated_and_expired_keys_are_worth_nothing_at_once() {
    let host = with_token().await;
    let f = deploy(&host, "f", json!({"auth": "key"})).await;
    let wanted = || json!({"functions": ["f"], "rights": ["invoke"]});
    let (id, revoked) = create(&host, wanted()).await;
    assert_eq!(invoke(&f, &revoked).await.status, 200);
    let path = format!("/v1/keys/{id}");
    assert_eq!(ask(&host, Some(ADMIN_TOKEN), "DELETE", &path, Value::Null).await.status, 204);
    invoke(&f, &revoked).await.problem(401, "unauthorized");
    ask(&host, Some(ADMIN_TOKEN), "DELETE", &path, Value::Null).await.problem(404, "key-not-found");

    let (id, first) = create(&host, wanted()).await;
    let rotate = async |grace_ms: u64| {
        let body = json!({"graceMs": grace_ms});
        let reply = ask(&host, Some(ADMIN_TOKEN), "POST", &format!("/v1/keys/{id}/rotate"), body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["token"].as_str().unwrap().to_owned()
    };
    let second = rotate(600_000).await;
    assert_eq!([invoke(&f, &first).await.status, invoke(&f, &second).await.status], [200, 200]);
    let third = rotate(0).await;
    for gone in [&first, &second] {
        invoke(&f, gone).await.problem(401, "unauthorized");
    }
    assert_eq!(invoke(&f, &third).await.status, 200);
    let body = json!({"graceMs": 1e12});
    ask(&host, Some(ADMIN_TOKEN), "POST", &format!("/v1/keys/{id}/rotate"), body).await.problem(400, "invalid-request");

    let at = humantime::format_rfc3339_millis(std::time::SystemTime::now() + std::time::Duration::from_millis(1500));
    let (_, short) =
        create(&host, json!({"functions": ["f"], "rights": ["invoke", "read"], "expiresAt": at.to_string()})).await;
    assert_eq!(invoke(&f, &short).await.status, 200);
    eventually("the key's end", async || {
        let reply = invoke(&f, &short).await;
        if reply.status == 401 { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    assert!(invoke(&f, &short).await.problem(401, "unauthorized").contains("expired at"));
    ask(&host, Some(&short), "GET", "/v1/functions/f", Value::Null).await.problem(401, "unauthorized");
    // It is the same after a kill.
    let host = host.kill_and_restart().await;
    for (token, status) in [(&revoked, 401), (&first, 401), (&third, 200), (&short, 401)] {
        assert_eq!(invoke(&host.function("f"), token).await.status, status);
    }
}

#[tokio::test]
async fn who_follows_a_log_sees_no_more_of_it_once_the_key_is_revoked() {
    let host = with_token().await;
    let package = "guest-probe";
    let url = format!("{}/v1/functions/probe/code", host.admin);
    let deployed = host.client.put(url).bearer_auth(ADMIN_TOKEN).body(tests::component(package)).send().await.unwrap();
    assert_eq!(deployed.status().as_u16(), 201);
    let probe = host.function("probe");
    let (id, own) = create(&host, json!({"functions": ["probe"], "rights": ["read"]})).await;
    let print = async |text: &str| assert_eq!(probe.script(json!([{"print": text}])).await.status, 200);
    print("before").await;
    let url = format!("{}/v1/functions/probe/logs?follow=true", host.admin);
    let mut stream = host.client.get(url).bearer_auth(&own).send().await.unwrap();
    let mut read = String::new();
    let next =
        async |stream: &mut reqwest::Response| timeout(PATIENCE, stream.chunk()).await.expect("in time").unwrap();
    while !read.contains("before") {
        read.push_str(&String::from_utf8_lossy(&next(&mut stream).await.expect("the log goes on")));
    }
    let path = format!("/v1/keys/{id}");
    assert_eq!(ask(&host, Some(ADMIN_TOKEN), "DELETE", &path, Value::Null).await.status, 204);
    print("after").await;
    while let Some(chunk) = next(&mut stream).await {
        read.push_str(&String::from_utf8_lossy(&chunk));
        assert!(!read.contains("after"), "{read}");
    }
}

#[tokio::test]
async fn the_key_that_called_is_in_records_logs_and_the_bill() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"auth": "key"})).await;
    let made = host.client.post(format!("{}/v1/keys", host.admin));
    let made = made.body(json!({"functions": ["*"], "rights": ["invoke"]}).to_string()).send().await.unwrap();
    let made = Reply::of(made).await.json();
    let (id, token) = (&made["id"], made["token"].as_str().unwrap());
    let script = json!({"do": [{"print": "hello"}, {"spin-ms": 5}]}).to_string();
    let reply = Reply::of(probe.request(script).bearer_auth(token).send().await.unwrap()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    probe.reaches("parked").await;
    let record = host.invocations().await.pop().unwrap();
    assert_eq!(&record["key"], id, "{record}");
    assert!(record["executedMs"].as_f64().unwrap() > 0.0, "{record}");
    let lines = probe.lines().await;
    let line = lines.iter().find(|line| line["text"] == "hello").unwrap();
    assert_eq!(&line["key"], id, "{line}");
    let usage = host.get("/v1/usage?group=key").await.json();
    let [group] = usage["groups"].as_array().unwrap().as_slice() else { panic!("{usage}") };
    assert_eq!((&group["key"], &group["requests"], &group["cu"]), (id, &json!(1), &usage["total"]["cu"]));
    // Who is to blame for a crash is in the host's own log as well.
    let crash = json!({"do": ["trap"]}).to_string();
    let reply = Reply::of(probe.request(crash).bearer_auth(token).send().await.unwrap()).await;
    assert_eq!(reply.status, 502, "{reply:?}");
    let named = format!("key={}", id.as_str().unwrap());
    assert!(host.log().lines().any(|line| line.contains("crashed") && line.contains(&named)), "{}", host.log());
    assert!(!host.log().contains(&token[21..]), "the secret is in the log");
}

#[tokio::test]
async fn a_key_makes_no_more_requests_a_second_than_it_may() {
    let host = with_token().await;
    let f = deploy(&host, "f", json!({"auth": "key"})).await;
    let (_, token) = create(&host, json!({"functions": ["f"], "rights": ["invoke"], "requestsPerSecond": 2})).await;
    let mut refused = None;
    for _ in 0..200 {
        let reply = invoke(&f, &token).await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("200 requests take less than 100 seconds");
    let detail = refused.problem(429, "key-limit-reached");
    assert!(detail.contains("2 times a second"), "{detail}");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(invoke(&f, ADMIN_TOKEN).await.status, 200, "others are not held up");
    assert_eq!(ask(&host, Some(&token), "GET", "/v1/host", Value::Null).await.status, 200, "to look is no call");
}

#[tokio::test]
async fn keys_that_make_no_sense_are_refused_with_what_would() {
    let host = with_token().await;
    for (wanted, code, named) in [
        (json!({"functions": ["*"]}), 400, "rights"),
        (json!({"rights": ["invoke"]}), 400, "functions"),
        (json!({"functions": ["*"], "rights": ["admin"]}), 400, "manage"),
        (json!({"functions": ["*"], "rights": ["read"], "expires": "x"}), 400, "expires"),
        (json!(["*"]), 400, "object"),
        (json!({"functions": [], "rights": []}), 422, "functions"),
        (json!({"functions": ["a b"], "rights": ["read"]}), 422, "shop-*"),
        (json!({"functions": ["*"], "rights": ["read"], "expiresAt": "tomorrow"}), 422, "2027-01-31T00:00:00Z"),
        (json!({"functions": ["*"], "rights": ["read"], "expiresAt": "2020-01-01T00:00:00Z"}), 422, "over"),
        (json!({"functions": ["*"], "rights": ["read"], "requestsPerSecond": 0}), 422, "at least 1"),
    ] {
        let reply = ask(&host, Some(ADMIN_TOKEN), "POST", "/v1/keys", wanted.clone()).await;
        let detail = reply.problem(code, if code == 400 { "invalid-request" } else { "key-refused" });
        assert!(detail.contains(named), "{wanted}: {detail}");
    }
    for (method, path, code) in [
        ("GET", "/v1/keys/x", "invalid-request"),
        ("GET", "/v1/keys/dmk-0123456789abcdef", "key-not-found"),
        ("DELETE", "/v1/keys/admin-token", "key-refused"),
        ("POST", "/v1/keys/admin-token/rotate", "key-refused"),
    ] {
        let reply = ask(&host, Some(ADMIN_TOKEN), method, path, Value::Null).await;
        assert_eq!(reply.json()["code"], code, "{method} {path}");
    }
    let shown = ask(&host, Some(ADMIN_TOKEN), "GET", "/v1/keys", Value::Null).await.json();
    assert_eq!(shown["keys"][0]["id"], "admin-token");
    assert_eq!(shown["keys"].as_array().unwrap().len(), 1);
    let few = TestHost::builder().flag("--keys-max=1").start().await;
    let wanted = || json!({"functions": ["*"], "rights": ["read"]});
    assert_eq!(ask(&few, None, "POST", "/v1/keys", wanted()).await.status, 201);
    let detail = ask(&few, None, "POST", "/v1/keys", wanted()).await.problem(409, "too-many");
    assert!(detail.contains("keys-max"), "{detail}");
}

/// What a route of the admin plane asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asks {
    Nothing,
    AnyKey,
    Invoke,
    Read,
    Manage,
    ReadAll,
    ManageAll,
}

/// Every route, and what it asks for.
const ROUTES: &[(&str, &str, Asks)] = &[
    ("get", "/healthz", Asks::Nothing),
    ("get", "/readyz", Asks::Nothing),
    ("get", "/v1/host", Asks::AnyKey),
    ("get", "/v1/functions", Asks::AnyKey),
    ("get", "/v1/usage", Asks::AnyKey),
    ("get", "/v1/usage/windows", Asks::AnyKey),
    ("get", "/v1/usage/invocations", Asks::AnyKey),
    ("get", "/v1/audit", Asks::AnyKey),
    ("get", "/v1/functions/{name}", Asks::Read),
    ("patch", "/v1/functions/{name}", Asks::Manage),
    ("delete", "/v1/functions/{name}", Asks::Manage),
    ("put", "/v1/functions/{name}/code", Asks::Manage),
    ("post", "/v1/functions/{name}/suspend", Asks::Manage),
    ("post", "/v1/functions/{name}/resume", Asks::Manage),
    ("post", "/v1/functions/{name}/disable", Asks::Manage),
    ("post", "/v1/functions/{name}/enable", Asks::Manage),
    ("get", "/v1/functions/{name}/invocations", Asks::Read),
    ("get", "/v1/functions/{name}/invocations/{id}", Asks::Read),
    ("post", "/v1/functions/{name}/invocations/{id}/stop", Asks::Manage),
    ("post", "/v1/functions/{name}/invocations/{id}/replay", Asks::Manage),
    ("post", "/v1/functions/{name}/replay", Asks::Manage),
    ("get", "/v1/functions/{name}/webhook-secret", Asks::Manage),
    ("get", "/v1/functions/{name}/triggers", Asks::Read),
    ("post", "/v1/functions/{name}/triggers/{trigger}/fire", Asks::Manage),
    ("get", "/v1/functions/{name}/versions", Asks::Read),
    ("post", "/v1/functions/{name}/versions", Asks::Manage),
    ("get", "/v1/functions/{name}/versions/{version}", Asks::Read),
    ("delete", "/v1/functions/{name}/versions/{version}", Asks::Manage),
    ("get", "/v1/functions/{name}/aliases", Asks::Read),
    ("get", "/v1/functions/{name}/aliases/{alias}", Asks::Read),
    ("put", "/v1/functions/{name}/aliases/{alias}", Asks::Manage),
    ("delete", "/v1/functions/{name}/aliases/{alias}", Asks::Manage),
    ("post", "/v1/functions/{name}/aliases/{alias}/rollback", Asks::Manage),
    ("get", "/v1/functions/{name}/instances", Asks::Read),
    ("get", "/v1/functions/{name}/logs", Asks::Read),
    ("post", "/v1/functions/{name}/invoke", Asks::Invoke),
    ("get", "/v1/instances/{id}", Asks::Read),
    ("post", "/v1/instances/{id}/stop", Asks::Manage),
    ("get", "/v1/keys", Asks::ManageAll),
    ("post", "/v1/keys", Asks::ManageAll),
    ("get", "/v1/keys/{id}", Asks::ManageAll),
    ("delete", "/v1/keys/{id}", Asks::ManageAll),
    ("post", "/v1/keys/{id}/rotate", Asks::ManageAll),
    ("get", "/metrics", Asks::ReadAll),
];

#[tokio::test]
async fn every_route_lets_in_the_keys_that_it_should_and_no_others() {
    let host = with_token().await;
    let f = deploy(&host, "shop-a", json!({})).await;
    assert_eq!(f.invoke("").await.status, 200);
    let list = ask(&host, Some(ADMIN_TOKEN), "GET", "/v1/functions/shop-a/instances", Value::Null).await.json();
    let instance = list["instances"][0]["id"].as_str().unwrap();
    let document = ask(&host, Some(ADMIN_TOKEN), "GET", "/openapi.json", Value::Null).await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let listed = ROUTES.iter().any(|(other, at, _)| other == method && at == path);
            assert!(listed, "{method} {path} is not in the table");
        }
    }
    use Asks::{AnyKey, Invoke, Manage, ManageAll, Nothing, Read, ReadAll};
    let manager: &[Asks] = &[Nothing, AnyKey, Invoke, Read, Manage];
    let kinds = [
        (None, &[Nothing][..]),
        (Some(ADMIN_TOKEN.to_owned()), &[Nothing, AnyKey, Invoke, Read, Manage, ReadAll, ManageAll]),
        (Some(key(&host, &["*"], &["manage"]).await), &[Nothing, AnyKey, Invoke, Read, Manage, ReadAll, ManageAll]),
        (Some(key(&host, &["*"], &["read"]).await), &[Nothing, AnyKey, Read, ReadAll]),
        (Some(key(&host, &["*"], &["invoke"]).await), &[Nothing, AnyKey, Invoke]),
        (Some(key(&host, &["shop-*"], &["manage"]).await), manager),
        (Some(key(&host, &["shop-a"], &["read", "invoke"]).await), &[Nothing, AnyKey, Invoke, Read]),
        (Some(key(&host, &["shop-a"], &["invoke"]).await), &[Nothing, AnyKey, Invoke]),
        (Some(key(&host, &["shop-", "other-*"], &["manage"]).await), &[Nothing, AnyKey]),
    ];
    for (method, path, asks) in ROUTES {
        for (key, may) in &kinds {
            // What is allowed finds nothing to do, but for the instance, which is asked to stop by the last of its operators.
            let id = if path.starts_with("/v1/instances") { instance } else { "dmk-00000000000000aa" };
            let at = path.replace("{name}", "shop-absent").replace("{id}", id);
            let at = if key.as_deref().is_some_and(|_| path.contains("{name}")) && !may.contains(&ReadAll) {
                at.replace("shop-absent", "shop-a")
            } else {
                at
            };
            let at = at.replace("{version}", "7").replace("{alias}", "absent");
            if *method == "delete" && *path == "/v1/functions/{name}" && may.contains(asks) {
                continue;
            }
            let reply = ask(&host, key.as_deref(), &method.to_uppercase(), &at, Value::Null).await;
            let refused = match (key, path.starts_with("/v1/instances")) {
                (None, _) => reply.status == 401,
                // Not even that it is there.
                (Some(_), true) => reply.status == 404,
                (Some(_), false) => reply.status == 403,
            };
            let stopped = *method == "post" && *path == "/v1/instances/{id}/stop";
            if !stopped {
                assert_eq!(!refused, may.contains(asks), "{method} {at} ({asks:?}) by {key:?}: {reply:?}");
            } else if !may.contains(asks) {
                assert!(refused, "{reply:?}");
            }
        }
    }
    ask(&host, None, "GET", "/openapi.json", Value::Null).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn who_may_manage_some_functions_sees_changes_and_bills_only_those() {
    let host = with_token().await;
    for name in ["shop-a", "other"] {
        let f = deploy(&host, name, json!({})).await;
        assert_eq!(f.invoke("").await.status, 200);
    }
    let own = key(&host, &["shop-*"], &["manage"]).await;
    let whole = eventually("both requests on the bill", async || {
        let usage = ask(&host, Some(ADMIN_TOKEN), "GET", "/v1/usage?group=function", Value::Null).await.json();
        if usage["total"]["requests"] == 2 { Ok(usage) } else { Err(usage.to_string()) }
    })
    .await;
    let get = async |path: &str| ask(&host, Some(&own), "GET", path, Value::Null).await;
    let listed = get("/v1/functions").await.json();
    let names: Vec<&Value> = listed["functions"].as_array().unwrap().iter().map(|function| &function["name"]).collect();
    assert_eq!(names, ["shop-a"]);
    let of_all = |usage: &Value| {
        usage["groups"].as_array().unwrap().iter().map(|group| group["key"].clone()).collect::<Vec<_>>()
    };
    let usage = get("/v1/usage?group=function").await.json();
    assert_eq!((of_all(&usage), &usage["total"]["requests"]), (vec![json!("shop-a")], &json!(1)));
    assert_eq!(of_all(&whole).len(), 2);
    for (records, name) in [("windows", "windows"), ("invocations", "invocations")] {
        let page = get(&format!("/v1/usage/{records}")).await.json();
        let records = page[name].as_array().unwrap();
        assert!(!records.is_empty() && records.iter().all(|record| record["function"] == "shop-a"), "{page}");
    }
    for path in ["/v1/usage?function=other", "/v1/usage/windows?function=other", "/v1/usage/invocations?function=other"]
    {
        get(path).await.problem(403, "forbidden");
    }
    get("/v1/audit?function=other").await.problem(403, "forbidden");
    let audit = get("/v1/audit").await.json();
    let entries = audit["entries"].as_array().unwrap();
    assert!(!entries.is_empty() && entries.iter().all(|entry| entry["function"] == "shop-a"), "{audit}");
    assert_eq!(get("/v1/host").await.json()["operator"], own[..20]);
    // A new one within its scope, and none outside.
    let put = async |name: &str| {
        let request = host.client.put(format!("{}/v1/functions/{name}/code", host.admin)).bearer_auth(&own);
        Reply::of(request.body(Small::PLAIN.component()).send().await.unwrap()).await
    };
    assert_eq!(put("shop-new").await.status, 201);
    put("shopnew").await.problem(403, "forbidden");
}

#[tokio::test]
async fn the_audit_log_says_who_changed_what_when_and_from_where() {
    let builder = TestHost::builder().variable("DORMOUSE_ADMIN_TOKEN", ADMIN_TOKEN).flag("--audit-entries-max=5");
    let host = builder.start().await;
    deploy(&host, "f", json!({"environment": {"SECRET": "hush"}})).await;
    let (id, own) = create(&host, json!({"functions": ["f"], "rights": ["manage"]})).await;
    let patch = json!({"environment": {"SECRET": "hush hush"}, "memoryMb": 256});
    assert_eq!(ask(&host, Some(&own), "PATCH", "/v1/functions/f", patch).await.status, 200);
    assert_eq!(ask(&host, Some(&own), "PATCH", "/v1/functions/f", json!({"memoryMb": 1})).await.status, 422);
    // To look, and to be refused for who one is, are no changes.
    assert_eq!(ask(&host, Some(&own), "GET", "/v1/functions/f", Value::Null).await.status, 200);
    assert_eq!(ask(&host, Some(&own), "DELETE", "/v1/functions/g", Value::Null).await.status, 403);
    for id in ["x", "i-0123456789abcdef"] {
        let reply = ask(&host, Some(&own), "POST", &format!("/v1/instances/{id}/stop"), Value::Null).await;
        assert!(matches!(reply.status, 400 | 404), "{reply:?}");
    }
    let audit = ask(&host, Some(ADMIN_TOKEN), "GET", "/v1/audit", Value::Null).await;
    assert!(!audit.text().contains("hush") && !audit.text().contains(&own[21..]), "{audit:?}");
    let audit = audit.json();
    let seen: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert_eq!(entry["address"], "127.0.0.1");
            assert!(humantime::parse_rfc3339(entry["time"].as_str().unwrap()).is_ok());
            ["operator", "action", "function", "status", "detail"].map(|name| entry[name].clone())
        })
        .collect();
    let expected = [
        json!([id, "configureFunction", "f", 422, "settings-refused"]),
        json!([id, "configureFunction", "f", 200, "environment, memoryMb"]),
        json!(["admin-token", "createKey", null, 201, format!("{id}: manage for f")]),
    ];
    assert_eq!(json!(seen[..3]), json!(expected));
    assert_eq!(json!(seen[3][..4]), json!(["admin-token", "deployFunction", "f", 201]));
    let detail = seen[3][4].as_str().unwrap();
    assert!(detail.starts_with("revision ") && detail.ends_with("settings: environment"), "{detail}");
    // It is there after a kill, and keeps the newest.
    let host = host.kill_and_restart().await;
    for reason in 0..4 {
        let path = "/v1/functions/f/disable";
        assert_eq!(ask(&host, Some(&own), "POST", path, json!({"reason": reason.to_string()})).await.status, 200);
    }
    let page = async |query: &str| {
        ask(&host, Some(ADMIN_TOKEN), "GET", &format!("/v1/audit?{query}"), Value::Null).await.json()
    };
    let all = page("").await;
    assert_eq!(all["entries"].as_array().unwrap().len(), 5);
    let first = page("limit=3&function=f").await;
    let rest = page(&format!("limit=3&function=f&before={}", first["next"])).await;
    let count = |page: &Value| page["entries"].as_array().unwrap().len();
    assert_eq!((count(&first), count(&rest), rest.get("next")), (3, 2, None));
    ask(&host, Some(ADMIN_TOKEN), "GET", "/v1/audit?limit=0", Value::Null).await.problem(400, "invalid-request");
}

#[tokio::test]
async fn a_host_that_others_reach_says_which_functions_are_open() {
    let state = TestHost::start().await;
    for (name, settings) in
        [("open", json!({"auth": "none"})), ("unsaid", json!({})), ("closed", json!({"auth": "key"}))]
    {
        let reply = state.put_code(name, Small::PLAIN.component(), &settings).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    assert_eq!(state.function("unsaid").invoke("").await.status, 200, "on loopback");
    let builder = state.same();
    state.signal(rustix::process::Signal::TERM);
    assert!(state.ended().await.0.success());
    let host = builder.flag("--data-addr=0.0.0.0:0").start().await;
    let said = eventually("the line about open functions", async || {
        let log = host.log();
        log.lines().find(|line| line.contains("need no key")).map(str::to_owned).ok_or(log.clone())
    })
    .await;
    assert!(said.contains("1 of 3") && said.ends_with(": open"), "{said}");
    assert_eq!(host.function("open").invoke("").await.status, 200);
    for name in ["unsaid", "closed"] {
        host.function(name).invoke("").await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn an_admin_plane_that_others_reach_needs_somebody_who_may_use_it() {
    let first = TestHost::start().await;
    let everywhere = first.same().flag("--admin-addr=0.0.0.0:0").flag("--admin-without-tls");
    let own = Reply::of(
        first
            .client
            .post(format!("{}/v1/keys", first.admin))
            .body(json!({"functions": ["*"], "rights": ["manage"]}).to_string())
            .send()
            .await
            .unwrap(),
    )
    .await
    .json();
    let (id, token) = (own["id"].as_str().unwrap(), own["token"].as_str().unwrap());
    first.signal(rustix::process::Signal::TERM);
    assert!(first.ended().await.0.success());
    let host = everywhere.clone().start().await;
    ask(&host, None, "GET", "/v1/functions", Value::Null).await.problem(401, "unauthorized");
    assert_eq!(ask(&host, Some(token), "GET", "/v1/functions", Value::Null).await.status, 200);
    assert_eq!(ask(&host, Some(token), "DELETE", &format!("/v1/keys/{id}"), Value::Null).await.status, 204);
    host.signal(rustix::process::Signal::TERM);
    assert!(host.ended().await.0.success());
    let mut command = everywhere.command();
    command.env_remove("DORMOUSE_ADMIN_TOKEN").stdin(Stdio::null());
    let output = timeout(PATIENCE, command.output()).await.expect("it ends at once").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nobody could use it") && said.contains("keys create"), "{said}");
}

/// The command line of one user.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> User {
        User { home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = dormouse();
        command.args(arguments).env("XDG_CONFIG_HOME", self.home.path());
        for name in ["DORMOUSE_ADMIN", "DORMOUSE_DATA", "DORMOUSE_KEY", "DORMOUSE_ADMIN_TOKEN", "DORMOUSE_HOST"] {
            command.env_remove(name);
        }
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.expect("the program runs")
    }

    async fn printed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn complaint(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test]
async fn keys_are_made_listed_rotated_and_revoked_on_the_command_line() {
    let host = with_token().await;
    deploy(&host, "shop-a", json!({"auth": "key"})).await;
    let user = User::new();
    let at: Vec<&str> = vec!["--admin", &host.admin, "--key", ADMIN_TOKEN];
    let run = async |arguments: &[&str]| user.printed(&[arguments, &at].concat()).await;
    let create = ["keys", "create", "--functions", "shop-*,cart", "--allow", "invoke", "--description", "the shop"];
    let made = user.run(&[&create[..], &["--expires", "30d", "--requests-per-second", "100"], &at].concat()).await;
    let (token, note) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    let token = token.trim_end();
    let id = token.split_once('.').unwrap().0;
    assert!(note.contains(id) && note.contains("may invoke cart, shop-*") && note.contains("only copy"), "{note}");
    let listed = run(&["keys", "list"]).await;
    for part in [id, "cart, shop-*", "the shop", "never", "admin-token"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert!(!listed.contains(&token[21..]));
    let call = |token: &str| {
        vec![
            "invoke".to_owned(),
            "shop-a".to_owned(),
            "--key".to_owned(),
            token.to_owned(),
            "--admin".to_owned(),
            host.admin.clone(),
        ]
    };
    let called = call(token);
    user.printed(&called.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let rotated = run(&["keys", "rotate", id]).await;
    let complaint = user.complaint(&called.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(complaint.contains("(unauthorized)"), "{complaint}");
    let called = call(rotated.trim_end());
    user.printed(&called.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(run(&["keys", "revoke", id]).await, format!("revoked {id}\n"));
    assert_eq!(run(&["configure", "shop-a", "--set", "auth=none"]).await, "configured shop-a, revision 1\n");
    user.printed(&["invoke", "shop-a", "--admin", &host.admin, "--data", &host.data]).await;
    run(&["configure", "shop-a", "--set", "auth=key"]).await;
    user.complaint(&called.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let usage = run(&["usage", "--group", "key"]).await;
    assert!(usage.contains(id), "{usage}");
    let audit = run(&["audit"]).await;
    for part in ["admin-token", "createKey", "rotateKey", "revokeKey", "deployFunction", "shop-a", "127.0.0.1"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let complaint = user.complaint(&["keys", "list", "--admin", &host.admin]).await;
    assert!(complaint.contains("--key") && complaint.contains("dormouse login"), "{complaint}");
}

#[tokio::test]
async fn hosts_are_known_by_name_and_their_keys_shown_to_no_other() {
    let (host, other) = (with_token().await, TestHost::start().await);
    deploy(&host, "there", json!({"auth": "key"})).await;
    assert_eq!(other.put_code("here", Small::PLAIN.component(), &json!({})).await.status, 201);
    let user = User::new();
    let complaint = user.complaint(&["login", "prod", "--admin", &host.admin, "--key", "wrong"]).await;
    assert!(complaint.contains("(unauthorized)"), "{complaint}");
    assert!(!user.home.path().join("dormouse/hosts.toml").exists(), "what does not work is not kept");
    let said = user.printed(&["login", "prod", "--admin", &host.admin, "--key", ADMIN_TOKEN]).await;
    assert!(said.contains("admin-token") && said.contains("dormouse --host prod list"), "{said}");
    let file = user.home.path().join("dormouse/hosts.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for arguments in [&["--host", "prod", "list"][..], &["list", "--host", "prod"]] {
        assert!(user.printed(arguments).await.contains("there"), "{arguments:?}");
    }
    user.printed(&["--host", "prod", "invoke", "there"]).await;
    // Another address gets nothing of it, also if it is said to be the data plane.
    let elsewhere = ["--host", "prod", "invoke", "there", "--data", &host.data];
    assert!(user.complaint(&elsewhere).await.contains("wants an access key"));
    user.printed(&[&elsewhere[..], &["--key", ADMIN_TOKEN]].concat()).await;
    assert!(user.complaint(&["list", "--admin", &host.admin]).await.contains("(unauthorized)"));
    user.printed(&["login", "--admin", &other.admin]).await;
    assert!(user.printed(&["list"]).await.contains("here"), "the default host");
    let listed = user.printed(&["login", "--list"]).await;
    assert!(listed.contains("default") && listed.contains("prod") && !listed.contains("sesame"), "{listed}");
    assert!(user.complaint(&["--host", "pord", "list"]).await.contains("known are default, prod"));
    let both = user.complaint(&["--host", "prod", "list", "--admin", &other.admin]).await;
    assert!(both.contains("leave one out"), "{both}");
    assert!(user.complaint(&["login"]).await.contains("--admin URL"));
    user.printed(&["login", "prod", "--forget"]).await;
    assert!(!fs::read_to_string(&file).unwrap().contains("sesame"));
    user.complaint(&["--host", "prod", "list"]).await;
}

#[tokio::test]
async fn a_key_for_some_functions_reaches_no_others_by_their_settings() {
    let host = with_token().await;
    deploy(&host, "site", json!({"triggers": {"all": {"http": {"host": "shop.test"}}}})).await;
    deploy(&host, "mine", json!({})).await;
    let mine = key(&host, &["mine"], &["manage"]).await;
    let both = key(&host, &["mine", "site"], &["manage"]).await;
    let set = async |key: &str, patch: Value| ask(&host, Some(key), "PATCH", "/v1/functions/mine", patch).await;
    let to = |function: &str| json!({"async": {"qualifiers": {"LATEST": {"onSuccess": {"function": function}}}}});
    assert!(set(&mine, to("site")).await.problem(403, "forbidden").contains("may not invoke function `site`"));
    assert_eq!(set(&mine, to("mine")).await.status, 200);
    let at = |host: Option<&str>| json!({"triggers": {"x": {"http": {"host": host, "path": "/login"}}}});
    let detail = set(&mine, at(Some("Shop.test"))).await.problem(403, "forbidden");
    assert!(detail.contains("another function has addresses of that host name"), "{detail}");
    assert!(set(&mine, at(None)).await.problem(403, "forbidden").contains("without a host name"));
    assert_eq!(set(&mine, at(Some("mine.test"))).await.status, 200);
    // Who covers both may; and what is there already stays when somebody else changes something.
    assert_eq!(set(&both, to("site")).await.status, 200);
    assert_eq!(set(&both, at(Some("shop.test"))).await.status, 200);
    assert_eq!(set(&mine, json!({"description": "x"})).await.status, 200);
}
