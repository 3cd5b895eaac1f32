//! Metrics, as Prometheus reads them: its own checker, and a server that scrapes the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{TestHost, eventually};

/// A host with a function that was called in every way, and failed once.
async fn called() -> TestHost {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    for script in [json!(["count"]), json!([{"fail": "no"}]), json!(["trap"]), json!(["count"])] {
        let is_alive = script != json!(["trap"]);
        probe.script(script).await;
        if is_alive {
            probe.reaches("parked").await;
        }
    }
    host
}

#[tokio::test]
async fn the_text_passes_promtool_and_counts_by_function_outcome_and_start() {
    let host = called().await;
    let reply = host.get("/metrics").await;
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let mut check = Command::new("promtool");
    let check = check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().expect("Debian's package `prometheus` is installed");
    check.stdin.take().unwrap().write_all(&reply.body).await.unwrap();
    let checked = check.wait_with_output().await.unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");

    // What has not happened yet is there, so that its first increase is seen.
    for line in [
        r#"dormouse_hook_failures_total{hook="pre-stop",failure="timed-out"} 0"#,
        r#"dormouse_instance_stops_total{reason="evicted"} 0"#,
    ] {
        assert!(reply.text().lines().any(|own| own == line), "{line}: {}", reply.text());
    }
    for (labels, count) in [
        (r#"code="ok",start="cold""#, 2.0),
        (r#"code="function-failed",start="parked""#, 1.0),
        (r#"code="function-crashed",start="parked""#, 1.0),
    ] {
        let name = format!(r#"dormouse_requests_total{{function="probe",{labels}}}"#);
        assert_eq!(host.metric(&name).await, count, "{name}: {}", reply.text());
    }
    for name in ["queue", "start", "handler", "executed"] {
        assert_eq!(host.metric(&format!("dormouse_request_{name}_seconds_count")).await, 4.0, "{name}");
    }
    let (handler, executed) = (
        host.metric("dormouse_request_handler_seconds_sum").await,
        host.metric("dormouse_request_executed_seconds_sum").await,
    );
    assert!(executed > 0.0 && executed <= handler, "{executed} of {handler}");
}

#[tokio::test]
async fn hooks_attempts_and_parked_memory_are_measured() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"freezeAfterMs": 0, "async": {"maxAttempts": 1}})).await;
    probe.script(json!([])).await.results();
    probe.reaches("parked").await;
    let hook =
        |hook: &str, figure: &str| format!(r#"dormouse_hook_seconds_{figure}{{function="probe",hook="{hook}"}}"#);
    for (name, calls) in [("initializer", 1.0), ("pre-freeze", 1.0), ("pre-stop", 0.0)] {
        assert_eq!(host.metric(&hook(name, "count")).await, calls, "{name}");
    }
    assert!(host.metric(&hook("pre-freeze", "sum")).await > 0.0);
    let parked = host.metric("dormouse_parked_memory_bytes").await;
    assert_eq!(parked, host.metric("dormouse_guest_memory_bytes").await);
    assert!(parked >= 65536.0, "{parked}");
    for script in [json!([]), json!([{"fail": "no"}])] {
        let request = probe.request(json!({"do": script}).to_string()).header("dormouse-invocation-type", "async");
        assert_eq!(request.send().await.unwrap().status(), 202);
    }
    for (code, least) in [("ok", 1.0), ("function-failed", 1.0)] {
        let name = format!(r#"dormouse_queue_attempts_total{{code="{code}"}}"#);
        eventually(&name, async || match host.metric(&name).await {
            count if count >= least => Ok(()),
            count => Err(count.to_string()),
        })
        .await;
    }
    // Events that run at the same time have an instance each.
    let instances = probe.instances().await;
    for instance in &instances {
        host.post(&format!("/v1/instances/{}/stop", instance["id"].as_str().unwrap())).await;
    }
    probe.is_gone().await;
    assert_eq!(
        (host.metric("dormouse_parked_memory_bytes").await, host.metric(&hook("pre-stop", "count")).await),
        (0.0, instances.len() as f64)
    );
}

#[tokio::test]
async fn functions_beyond_the_bound_are_counted_together() {
    let host = TestHost::builder().flag("--metrics-functions-max=1").start().await;
    for name in ["first", "second", "third"] {
        host.deploy(name, "example-hello", json!({})).await.invoke("x").await;
    }
    assert_eq!(host.metric(r#"dormouse_requests_total{function="first""#).await, 1.0);
    assert_eq!(host.metric(r#"dormouse_requests_total{function="(others)""#).await, 2.0);
    assert_eq!(host.metric(r#"dormouse_requests_total{function="second""#).await, 0.0);
}

#[tokio::test]
async fn prometheus_scrapes_the_host_and_answers_the_queries_of_the_page() {
    let (host, folder) = (called().await, tempfile::tempdir().unwrap());
    let page = fs::read_to_string(tests::repository().join("host/docs/metrics.md")).unwrap();
    // As on the page, but for the address and for how often.
    let config = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = config.replace("127.0.0.1:8081", host.admin.strip_prefix("http://").unwrap());
    let config = format!("global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n{config}");
    let file = folder.path().join("prometheus.yml");
    fs::write(&file, config).unwrap();
    let port = free_port().await;
    let mut server = Command::new("prometheus");
    server.arg(format!("--config.file={}", file.display()));
    server.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    server.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _server = server.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();

    let ask = async |query: &str| -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("http://127.0.0.1:{port}/api/v1/query"), [("query", query)]);
        let asked = host.client.get(url.unwrap()).timeout(Duration::from_secs(5)).send().await;
        let text = asked.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer["status"] == "success" { Ok(answer["data"]["result"].clone()) } else { Err(text) }
    };
    let queries: Vec<&str> = page.split("```promql\n").nth(1).unwrap().split("```").next().unwrap().lines().collect();
    assert!(queries.len() >= 5);
    for query in queries {
        // Hooks that fail are none here.
        let may_be_empty = query.contains("hook_failures");
        eventually(query, async || {
            host.function("probe").script(json!(["count"])).await;
            let result = ask(query).await?;
            let has_figures = result.as_array().is_some_and(|series| !series.is_empty());
            if has_figures || may_be_empty { Ok(()) } else { Err(result.to_string()) }
        })
        .await;
    }
    // What the dashboard and the alert rules ask can be answered.
    let (dashboard, _) = monitoring();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m").replace("$function", ".*");
            ask(&query).await.unwrap_or_else(|error| panic!("{}: {query}: {error}", panel["title"]));
        }
    }
    let counted = ask("sum(dormouse_requests_total{code=\"function-failed\"})").await.unwrap();
    assert_eq!(counted[0]["value"][1], "1", "{counted}");
}

/// The dashboard, and where the alert rules are.
fn monitoring() -> (Value, PathBuf) {
    let folder = tests::repository().join("host/monitoring");
    let dashboard = fs::read_to_string(folder.join("dashboard.json")).unwrap();
    (serde_json::from_str(&dashboard).unwrap(), folder.join("alerts.yml"))
}

/// The names of metrics in a query or a rule.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("dormouse_")).collect()
}

#[tokio::test]
async fn the_dashboard_and_the_alert_rules_name_metrics_that_there_are() {
    let (dashboard, alerts) = monitoring();
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&alerts).output().await.unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let page = fs::read_to_string(tests::repository().join("host/docs/metrics.md")).unwrap();
    let known = names(&page);
    let rules = fs::read_to_string(alerts).unwrap();
    let mut asked: Vec<String> = rules.lines().map(str::to_owned).collect();
    assert_eq!(dashboard["schemaVersion"], 39);
    let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = &panel["gridPos"];
        let whole = |name: &str| place[name].as_u64().unwrap();
        assert!(whole("x") + whole("w") <= 24 && whole("h") > 0, "{place}");
        assert!(places.insert((whole("x"), whole("y"))) && ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert_eq!((&panel["type"], panel["title"].is_string()), (&json!("timeseries"), true));
        asked.extend(
            panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap().to_owned()),
        );
    }
    for name in asked.iter().flat_map(|text| names(text)) {
        let family = name.trim_end_matches("_bucket");
        assert!(known.contains(family), "{name} is not on the page about metrics");
    }
    // And what is on the page, the host has, once there is something to count.
    let text = called().await.get("/metrics").await.text();
    let later = ["dormouse_hook_failures_total", "dormouse_instance_stops_total"];
    for name in known.into_iter().filter(|name| !name.ends_with("_bucket") && !later.contains(name)) {
        assert!(text.contains(&format!("# TYPE {name} ")), "the host has no {name}");
    }
}

/// A port of the system's choice.
async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}
