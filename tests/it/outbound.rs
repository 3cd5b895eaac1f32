//! Requests that functions send: over connections that live as long as their instance is awake, with the caller's trace,
//! and over TLS to those whom the system trusts. Where they may go is shown in `sandbox`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{Kind, TestHost, TestServer, eventually, over_kinds};

over_kinds! {
    calls: [
        requests_of_an_awake_instance_share_connections_and_a_parked_one_has_none,
        a_request_goes_once_more_if_its_connection_was_closed,
        requests_go_on_with_the_callers_trace,
        servers_are_reached_over_tls_if_the_system_trusts_them,
        the_hosts_own_listeners_are_out_of_reach,
    ],
    sharing: [
        requests_at_the_same_time_go_on_with_their_own_traces,
        a_task_that_goes_on_after_a_freeze_gets_an_answer,
    ],
}

fn get(server: &TestServer) -> Value {
    json!({"http-get": format!("http://{}/", server.address)})
}

fn to_loopback() -> Value {
    json!({"allowedOutboundHosts": ["127.0.0.1", "localhost"], "freezeAfterMs": 0})
}

async fn requests_of_an_awake_instance_share_connections_and_a_parked_one_has_none(kind: Kind) {
    let host = TestHost::start().await;
    let server = TestServer::start("hello", Duration::ZERO).await;
    let function = kind.deploy(&host, "function", to_loopback()).await;
    // A connection is free for the next request a moment after the guest has read the last answer.
    let moment = json!({"sleep-ms": 50});
    let steps = json!([get(&server), moment, get(&server), moment, get(&server)]);
    for round in 1..=3 {
        let results = function.script(steps.clone()).await.results();
        assert_eq!(results[4], json!({"status": 200, "body": "hello"}));
        assert_eq!(server.accepted(), round, "one connection for the requests of a window");
        function.reaches("parked").await;
        eventually("the connection's end", async || match server.open() {
            0 => Ok(()),
            open => Err(open.to_string()),
        })
        .await;
    }
}

async fn a_request_goes_once_more_if_its_connection_was_closed(kind: Kind) {
    let host = TestHost::start().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let methods: Arc<Mutex<Vec<String>>> = Arc::default();
    let received = methods.clone();
    // Each connection answers one request, and closes when it has read the head of the next.
    let serving = tokio::task::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            let received = received.clone();
            tokio::task::spawn(async move {
                let mut stream = BufReader::new(stream);
                for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], b""] {
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.is_ok_and(|bytes| bytes > 2) {}
                    let method = line.split(' ').next().filter(|method| !method.is_empty());
                    received.lock().unwrap().extend(method.map(str::to_owned));
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let function = kind.deploy(&host, "function", to_loopback()).await;
    let (get, moment) = (json!({"http-get": url}), json!({"sleep-ms": 200}));
    let results = function.script(json!([get, moment, get])).await.results();
    assert_eq!((&results[0]["body"], &results[2]["body"]), (&json!("ok"), &json!("ok")), "{results}");
    assert_eq!(methods.lock().unwrap().len(), 3, "the second was sent twice");
    if kind == Kind::Hono {
        return; // What componentize-js makes exits when a request with a body fails.
    }
    // Whether one that may not be repeated had its effect is not known, and the function is told so.
    let results = function.script(json!([get, moment, {"http-post": [url, "x"]}])).await.results();
    assert!(results[2]["error"].is_string(), "{results}");
    let posts = methods.lock().unwrap().iter().filter(|method| *method == "POST").count();
    assert_eq!(posts, 1);
    serving.abort();
}

async fn requests_go_on_with_the_callers_trace(kind: Kind) {
    let host = TestHost::start().await;
    let server = TestServer::start("hello", Duration::ZERO).await;
    let function = kind.deploy(&host, "function", to_loopback()).await;
    let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let steps = json!({"do": [get(&server), get(&server)]}).to_string();
    let sent = function.request(steps).header("traceparent", own).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    function.script(json!([get(&server)])).await.results();
    let traces: Vec<String> =
        server.received().into_iter().map(|request| request.field("traceparent").to_owned()).collect();
    assert_eq!(traces.len(), 3);
    for trace in &traces[..2] {
        assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace.ends_with("-01"), "{traces:?}");
        assert_ne!(trace, own, "the function's request is a span of its own");
    }
    assert_ne!(traces[0], traces[1]);
    assert_eq!(traces[2].len(), own.len(), "a request without a trace begins one: {traces:?}");
    assert_ne!(traces[2][..36], own[..36]);
}

async fn requests_at_the_same_time_go_on_with_their_own_traces(kind: Kind) {
    let host = TestHost::start().await;
    let server = TestServer::start("hello", Duration::ZERO).await;
    let mut settings = to_loopback();
    settings["concurrency"] = json!(10);
    settings["maxInstances"] = json!(1);
    let function = kind.deploy(&host, "function", settings).await;
    let requests = (0..10).map(async |number: usize| {
        let post = json!({"http-post": [format!("http://{}/", server.address), number.to_string()]});
        let steps = json!({"do": [{"sleep-ms": 200}, post, {"print": format!("line {number}")}, "max-in-flight"]});
        let trace = format!("00-0af7651916cd43dd8448eb211c8031{number:02}-b7ad6b7169203331-01");
        let request =
            function.request(steps.to_string()).header("traceparent", trace).header("x-request-id", number.to_string());
        request.send().await.unwrap().json::<Value>().await.unwrap()["results"][3].as_u64().unwrap()
    });
    let most = join_all(requests).await.into_iter().max();
    assert!(most >= Some(2), "they were in the instance at the same time");
    for request in server.received() {
        let number: usize = request.body.parse().unwrap();
        let trace = format!("00-0af7651916cd43dd8448eb211c8031{number:02}-");
        assert!(request.field("traceparent").starts_with(&trace), "{request:?}");
    }
    // The same knowledge tells whose lines are whose.
    let lines = function.lines().await;
    let own: Vec<&Value> = lines.iter().filter(|line| line["text"].as_str().unwrap().starts_with("line ")).collect();
    assert_eq!(own.len(), 10);
    for line in own {
        assert_eq!(line["text"], format!("line {}", line["request"].as_str().unwrap_or("of nobody")));
    }
}

async fn a_task_that_goes_on_after_a_freeze_gets_an_answer(kind: Kind) {
    let host = TestHost::start().await;
    let server = TestServer::start("late", Duration::from_millis(700)).await;
    let hook = json!({"do": [get(&server), {"print": "flushed"}]}).to_string();
    let mut settings = to_loopback();
    settings["environment"] = json!({"PRE_FREEZE": hook});
    settings["lifecycle"] = json!({"preFreeze": {"timeoutMs": 200}});
    let function = kind.deploy(&host, "function", settings).await;
    function.script(json!([])).await.results();
    // The hook overran and is parked in the middle of its request; the answer comes while the instance sleeps.
    function.reaches("parked").await;
    eventually("the server's answer", async || match server.received().len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(function.lines_with("flushed").await, 0, "nothing ran in its sleep");
    function.script(json!([{"sleep-ms": 300}])).await.results();
    function.logs("flushed", 1).await;
}

async fn servers_are_reached_over_tls_if_the_system_trusts_them(kind: Kind) {
    let mut issuer = CertificateParams::new(Vec::new()).unwrap();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(issuer, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let server = TestServer::start_tls("secret", config).await;

    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&roots, issuer.pem()).unwrap();
    let step = json!([{"http-get": format!("https://localhost:{}/", server.address.port())}]);
    // Where systems keep their roots differs; this variable names the file on all of them.
    let trusting = TestHost::builder().variable("SSL_CERT_FILE", roots.path().to_str().unwrap()).start().await;
    let function = kind.deploy(&trusting, "function", to_loopback()).await;
    assert_eq!(function.script(step.clone()).await.results()[0], json!({"status": 200, "body": "secret"}));

    let wary = TestHost::start().await;
    let function = kind.deploy(&wary, "function", to_loopback()).await;
    let refused = function.script(step).await.results()[0].clone();
    let said = refused["error"].as_str().unwrap_or_else(|| panic!("{refused}"));
    // The engine of componentize-js keeps the reason to itself.
    assert!(kind == Kind::Hono || said.to_lowercase().contains("certificate"), "{said}");
    let told = format!("outgoing request to localhost:{} failed: ", server.address.port());
    let lines = function.lines().await;
    let line = lines.iter().find_map(|line| line["text"].as_str()?.strip_prefix(&told));
    assert!(line.is_some_and(|line| line.to_lowercase().contains("certificate")), "{lines:?}");
    assert_eq!(server.received().len(), 1, "nothing was sent to a server that nobody trusts");
}

async fn the_hosts_own_listeners_are_out_of_reach(kind: Kind) {
    let host = TestHost::start().await;
    let server = TestServer::start("hello", Duration::ZERO).await;
    let function = kind.deploy(&host, "function", json!({"allowedOutboundHosts": ["*"]})).await;
    let port = |plane: &str| plane.rsplit(':').next().unwrap().to_owned();
    let mut steps = Vec::new();
    for port in [port(&host.admin), port(&host.data)] {
        for name in ["127.0.0.1", "127.1.2.3", "0.0.0.0", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
            steps.push(json!({"http-get": format!("http://{name}:{port}/healthz")}));
        }
    }
    let refused = steps.len();
    steps.push(get(&server));
    let results = function.script(json!(steps)).await.results();
    for (step, result) in steps.iter().zip(results.as_array().unwrap()).take(refused) {
        assert!(result["error"].is_string(), "{step}: {result}");
    }
    assert_eq!(results[refused]["body"], "hello", "other servers of this machine are reached");
    assert_eq!(function.lines_with("is an address of the host itself").await, refused);

    let admin = format!("127.0.0.1:{}", port(&host.admin));
    function.configure(json!({"allowedOutboundHosts": [admin]})).await;
    let results = function.script(json!([steps[0], steps[1]])).await.results();
    assert_eq!(results[0]["status"], 200, "an operator may name it: {results}");
    assert!(results[1]["error"].is_string(), "{results}");
}
