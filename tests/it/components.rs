//! Components that nobody here wrote, as their packages have them: deployed unchanged, asked by curl, put under load, parked,
//! thawed and stopped. Their hooks are requests, if they have any.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::foreign;

use crate::support::{TestFunction, TestHost, dormouse};

/// What curl prints of an answer, with its head.
async fn curl(function: &TestFunction, path: &str, flags: &[&str]) -> String {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--max-time", "30"]).args(flags).arg(function.url(path));
    let output = curl.output().await.expect("curl is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// 400 requests over 16 connections: every one is answered with `body`.
async fn load(function: &TestFunction, path: &str, body: &str) {
    let connections = (0..16).map(async |_| {
        for _ in 0..25 {
            let reply = function.fetch("GET", path).send().await.unwrap();
            assert_eq!(reply.status(), 200);
            assert_eq!(reply.text().await.unwrap(), body);
        }
    });
    join_all(connections).await;
}

async fn deploy(host: &TestHost, name: &str, example: &foreign::Example) -> TestFunction {
    let component = tokio::task::block_in_place(|| example.component());
    let hooks = json!({"preFreeze": {"handler": "request"}, "preStop": {"handler": "request"}});
    let reply = host.put_code(name, component, &json!({"lifecycle": hooks})).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    host.function(name)
}

async fn stop(host: &TestHost, function: &TestFunction) {
    for instance in function.reaches("parked").await {
        host.post(&format!("/v1/instances/{}/stop", instance["id"].as_str().unwrap())).await;
    }
    function.is_gone().await;
}

async fn counted(host: &TestHost, hook: &str) -> (f64, f64) {
    let of = async |metric: &str| host.metric(&format!("{metric}{{hook=\"{hook}\"")).await;
    (of("dormouse_hook_calls_total").await, of("dormouse_hook_failures_total").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_bindings_run_with_hooks_they_know_nothing_of() {
    for example in [&foreign::WASIP2, &foreign::WASIP3] {
        let host = TestHost::start().await;
        let function = deploy(&host, "hello", example).await;
        let answer = curl(&function, "/any/path?at=all", &[]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("Hello, WASI!"), "{answer}");
        function.reaches("parked").await;
        assert!(curl(&function, "/", &[]).await.contains("dormouse-start: parked"));
        load(&function, "/", "Hello, WASI!").await;
        stop(&host, &function).await;
        // They answer every path with 200, the hooks' as well.
        let (freezes, failures) = counted(&host, "pre-freeze").await;
        assert!(freezes >= 2.0 && failures == 0.0, "{freezes} {failures}");
        let (stops, failures) = counted(&host, "pre-stop").await;
        assert!(stops >= 1.0 && failures == 0.0, "{stops} {failures}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_wstd_runs() {
    let host = TestHost::start().await;
    let function = deploy(&host, "server", &foreign::WSTD).await;
    assert!(curl(&function, "/", &[]).await.ends_with("Hello, wasi:http/proxy world!\n"));
    assert!(curl(&function, "/echo", &["--data", "some bytes"]).await.ends_with("some bytes"));
    assert!(curl(&function, "/echo-headers", &["--header", "x-thing: one"]).await.contains("x-thing: one"));
    assert!(curl(&function, "/wait-response", &[]).await.contains("slept for 1"));
    assert!(curl(&function, "/stream-body", &[]).await.contains("transfer-encoding: chunked"));
    assert!(
        curl(&function, "/response-status", &["--header", "x-response-status: 418"]).await.starts_with("HTTP/1.1 418")
    );
    assert!(curl(&function, "/nothing", &[]).await.starts_with("HTTP/1.1 404"));
    load(&function, "/", "Hello, wasi:http/proxy world!\n").await;
    assert!(function.lines_with("serving /stream-body").await == 1, "what it prints is in its log");
    stop(&host, &function).await;
    // It knows neither path, and says so.
    let (calls, failures) = counted(&host, "pre-freeze").await;
    assert!(calls >= 1.0 && calls == failures, "{calls} {failures}");
    assert!(function.lines_with("pre-freeze failed").await >= 1);
}

#[tokio::test]
async fn an_application_of_hono_runs_with_three_of_its_paths_as_hooks() {
    let host = TestHost::start().await;
    let folder = tests::repository().join("examples/hono");
    let mut deploy = dormouse();
    deploy.arg("deploy").arg(&folder).args(["--build", "--admin", &host.admin]);
    let deployed = deploy.output().await.unwrap();
    assert!(deployed.status.success(), "{deployed:?}");
    let function = host.function("hono");
    let visits = async || -> Value {
        let answer = curl(&function, "/tea", &[]).await;
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    assert_eq!(visits().await, json!({"page": "tea", "visits": 1}));
    let opened = format!("opens as {}", function.instances().await[0]["id"].as_str().unwrap());
    assert_eq!(function.lines_with(&opened).await, 1);
    function.logs("1 visits since the last rest", 1).await;
    function.reaches("parked").await;
    assert_eq!(visits().await["visits"], 2, "the same instance, thawed");
    let posted = curl(&function, "/pot", &["--data", "Darjeeling"]).await;
    assert!(posted.ends_with(r#"{"page":"pot","length":10}"#), "{posted}");
    assert!(curl(&function, "/no/such/page", &[]).await.starts_with("HTTP/1.1 404"));
    let replies = join_all((0..100).map(|_| function.fetch("GET", "/cake").send())).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap().status() == 200));
    assert_eq!(visits().await["visits"], 3);
    stop(&host, &function).await;
    function.logs("closes after 103 visits", 1).await;
}

/// As it is: nobody has to know that its instances answer one request each.
#[tokio::test]
async fn a_component_that_listens_for_fetch_events_runs() {
    let host = TestHost::start().await;
    let function = host.deploy("listener", "guest-fetch-event", json!({})).await;
    let shown = host.get("/v1/functions/listener").await.json();
    assert_eq!(shown["exports"]["capacity"], json!({"shares": false, "requestsMax": 1}), "{shown}");
    assert_eq!(shown.get("maxRequestsPerInstance"), None, "nobody configured it");
    for path in ["/one", "/two", "/three"] {
        let answer = curl(&function, path, &["--data", "some bytes"]).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("dormouse-start: cold"), "{answer}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, json!({"method": "POST", "path": path, "body": "some bytes", "requests": 1}));
    }
    let replies = join_all((0..20).map(|_| function.fetch("GET", "/at-once").send())).await;
    assert!(replies.into_iter().all(|reply| reply.unwrap().status() == 200));
    function.is_gone().await;

    let hook = json!({"lifecycle": {"preFreeze": {"handler": "request"}}});
    let refused = function.configure(hook).await.problem(422, "component-refused");
    assert!(refused.contains("GET /pre-freeze") && refused.contains("1 request in their life"), "{refused}");
    assert_eq!(function.configure(json!({"description": "still the same"})).await.status, 200);
    assert_eq!(host.get("/v1/functions/listener").await.json()["exports"]["capacity"]["requestsMax"], 1);
}
