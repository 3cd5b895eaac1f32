//! Languages other than Rust: what `dormouse new` writes builds and runs, and the examples do what their first lines
//! promise. The lifecycle's tests run over these languages too; see `support::Kind`.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Kind, TestHost, TestServer, Up, dormouse, dormouse_with_tools, eventually};

/// A new project, built and served.
async fn new_project(language: &str, folder: &Path) -> Up {
    let new = dormouse().args(["new", "greeter", "--lang", language]).current_dir(folder).output().await.unwrap();
    assert!(new.status.success(), "{new:?}");
    Up::start(&folder.join("greeter"), &folder.join("state"), &[]).await
}

async fn a_new_project_builds_and_runs(language: &str) {
    let folder = tempfile::tempdir().unwrap();
    let up = new_project(language, folder.path()).await;
    assert_eq!(up.invoke("greeter", "Ada").await.text(), "Hello, Ada! You are number 1.\n");
    assert_eq!(up.invoke("greeter", "Grace").await.text(), "Hello, Grace! You are number 2.\n");
    let failed = up.invoke("greeter", "").await.problem(500, "function-failed");
    assert!(failed.contains("whom shall I greet?"), "{failed}");
    up.interrupt().await;
}

#[tokio::test]
async fn a_new_project_in_python_builds_and_runs() {
    a_new_project_builds_and_runs("python").await;
}

#[tokio::test]
async fn a_new_project_in_javascript_builds_and_runs() {
    a_new_project_builds_and_runs("javascript").await;
}

#[tokio::test]
async fn a_new_project_in_typescript_builds_and_runs() {
    a_new_project_builds_and_runs("typescript").await;
}

#[tokio::test]
async fn a_new_project_in_c_builds_and_runs() {
    a_new_project_builds_and_runs("c").await;
}

#[tokio::test]
async fn a_new_web_application_in_javascript_builds_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let up = new_project("javascript-http", folder.path()).await;
    let answer = async |path: &str| tests::client().get(up.url("greeter") + path).send().await.unwrap();
    assert_eq!(answer("Ada").await.text().await.unwrap(), "Hello, Ada! You are number 1.\n");
    assert_eq!(answer("Grace").await.text().await.unwrap(), "Hello, Grace! You are number 2.\n");
    assert_eq!(answer("pre-freeze").await.status(), 404, "a hook is the host's to call");
    assert_eq!(answer("no/such/page").await.status(), 404);
    let ended = up.interrupt().await;
    assert_eq!(ended["stopped"]["preStops"], 0, "none is configured: {ended}");
}

#[tokio::test]
async fn a_missing_toolchain_is_named_with_the_package_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    for (language, package) in [
        ("python", "pip install componentize-py"),
        ("javascript", "apt install nodejs npm"),
        ("c", "cargo install --locked wit-bindgen-cli"),
    ] {
        let new = dormouse().args(["new", language, "--lang", language]).current_dir(folder.path()).output();
        assert!(new.await.unwrap().status.success());
        // A machine with a shell and nothing else.
        let bare = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/sh", bare.path().join("sh")).unwrap();
        let build = dormouse().arg("build").arg(folder.path().join(language)).env("PATH", bare.path()).output();
        let said = String::from_utf8(build.await.unwrap().stderr).unwrap();
        assert!(said.contains("is not installed") && said.contains(package), "{said}");
    }
}

/// Builds and deploys an example as its manifest says, with a collector if there is one; calls it, and stops it.
async fn lines_of_an_example(language: &str, event: Value, collector: Option<&TestServer>) -> Vec<String> {
    let host = TestHost::start().await;
    let folder = tests::repository().join("examples").join(language);
    let mut deploy = dormouse_with_tools();
    deploy.arg("deploy").arg(&folder).args(["--build", "--admin", &host.admin]);
    let deployed = deploy.output().await.unwrap();
    assert!(deployed.status.success(), "{deployed:?}");
    let function = host.function(language);
    if let Some(collector) = collector {
        let url = format!("http://{}/", collector.address);
        let allowed = json!([collector.address.to_string()]);
        function.configure(json!({"environment": {"COLLECTOR_URL": url}, "allowedOutboundHosts": allowed})).await;
    }
    for _ in 0..2 {
        assert_eq!(function.invoke(event.to_string()).await.status, 200);
    }
    let parked = function.reaches("parked").await;
    let stop = host.post(&format!("/v1/instances/{}/stop", parked[0]["id"].as_str().unwrap())).await;
    assert!(stop.status < 300, "{stop:?}");
    function.is_gone().await;
    function.lines().await.iter().filter_map(|line| Some(line["text"].as_str()?.to_owned())).collect()
}

fn assert_lines(lines: &[String], wanted: &[&str]) {
    for wanted in wanted {
        assert!(lines.iter().any(|line| line.contains(wanted)), "no line with {wanted:?} in {lines:?}");
    }
}

#[tokio::test]
async fn the_example_in_python_measures_and_closes_in_order() {
    let order = json!({"item": "tea", "cents": 450});
    let lines = lines_of_an_example("python", order.clone(), None).await;
    assert_lines(&lines, &["INFO orders: instance", "is open for orders", "measurements, the slowest"]);
    assert_lines(&lines, &["closes with 2 orders of 900 cents"]);
    let collector = TestServer::start("thanks", std::time::Duration::ZERO).await;
    lines_of_an_example("python", order, Some(&collector)).await;
    assert!(collector.received()[0].body.contains("\"metrics\""), "{:?}", collector.received());
}

#[tokio::test]
async fn the_example_in_javascript_measures_and_closes_in_order() {
    let visit = json!({"page": "/tea"});
    let lines = lines_of_an_example("javascript", visit.clone(), None).await;
    assert_lines(&lines, &["opened session", "spans, the slowest", "after 1 pages"]);
    let collector = TestServer::start("thanks", std::time::Duration::ZERO).await;
    lines_of_an_example("javascript", visit, Some(&collector)).await;
    assert!(collector.received()[0].body.contains("\"spans\""), "{:?}", collector.received());
}

#[tokio::test]
async fn the_example_in_c_counts_and_closes_in_order() {
    let bytes = Value::from("123456789");
    let lines = lines_of_an_example("c", bytes.clone(), None).await;
    assert_lines(&lines, &["has its table", "checksums since the last rest", "closes after 2 checksums of 22 bytes"]);
    let collector = TestServer::start("thanks", std::time::Duration::ZERO).await;
    let lines = lines_of_an_example("c", bytes, Some(&collector)).await;
    assert!(collector.received()[0].body.starts_with("{\"checksums\":"), "{:?} {lines:?}", collector.received());
}

#[tokio::test]
async fn the_standard_library_of_python_is_there() {
    let host = TestHost::start().await;
    let function = Kind::Python.deploy(&host, "function", json!({})).await;
    let reply = function.script(json!(["libraries"])).await;
    let libraries = reply.results()[0].clone();
    // As `printf dormouse | sha256sum` has it.
    let sha256 = "a501da99884c819536cb1d93d958f045bdce17b35b2a8c1fe7598d981f4d690e";
    let epoch = "1970-01-01T00:00:00+00:00";
    assert_eq!(libraries, json!({"hashlib": sha256, "datetime": epoch, "sqlite3": 2}));
    let lines = function.lines().await;
    let line = lines.iter().find(|line| line["text"] == "WARNING libraries: a line of logging").expect("the line");
    assert_eq!(line["request"], reply.header("dormouse-request-id"));
}

/// In the log, and not to the caller.
#[tokio::test]
async fn a_trap_shows_functions_and_where_there_is_debug_information_lines() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("divider");
    let new = dormouse().args(["new", "divider", "--lang", "c"]).current_dir(folder.path()).output().await.unwrap();
    assert!(new.status.success(), "{new:?}");
    let code = "#include \"dormouse_sdk.h\"\n\n\
                __attribute__((noinline)) static int divide(int one, int other) {\n  return one / other;\n}\n\n\
                bool handle(const dormouse_context_t *ctx, const char *event, size_t length, dormouse_result_t *result) {\n  \
                (void)ctx;\n  return reply(result, \"%d\", divide(event[0], (int)length - 5));\n}\n";
    std::fs::write(project.join("src/app.c"), code).unwrap();
    let manifest = std::fs::read_to_string(project.join("dormouse.toml")).unwrap();
    std::fs::write(project.join("dormouse.toml"), manifest.replace("-Os -s", "-Os -g")).unwrap();
    let host = TestHost::start().await;
    let deployed = dormouse_with_tools()
        .arg("deploy")
        .arg(&project)
        .args(["--build", "--admin", &host.admin])
        .output()
        .await
        .unwrap();
    assert!(deployed.status.success(), "{deployed:?}");
    let divider = host.function("divider");
    assert_eq!(divider.invoke("x").await.text(), "-30");
    let detail = divider.invoke("hello").await.problem(502, "function-crashed");
    assert!(detail.contains("divide by zero") && !detail.contains("app.c"), "{detail}");
    divider.logs("app.c:4", 1).await;
    assert_eq!(divider.lines_with("- divide").await, 1, "{:?}", divider.lines().await);
}

/// The module that the page about other languages shows does what the page says.
#[tokio::test]
async fn a_function_is_written_from_the_contract_alone() {
    let wit = tests::repository().join("wit");
    let page = std::fs::read_to_string(wit.join("README.md")).unwrap();
    let (_, shown) = page.split_once("```wat\n").unwrap();
    let (text, _) = shown.split_once("```\n").unwrap();
    let mut module = ::wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(&wit).unwrap();
    let world = resolve.select_world(&[package], Some("function")).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, module).unwrap();

    let host = TestHost::start().await;
    let mut deploy = dormouse();
    deploy.arg("deploy").arg("echo").arg(file.path()).args(["--set", "lifecycle.pre-freeze.handler=pre-freeze"]);
    let deployed = deploy.args(["--admin", &host.admin]).output().await.unwrap();
    assert!(deployed.status.success(), "{deployed:?}");
    let echo = host.function("echo");
    let large = "x".repeat(300_000);
    for event in ["hello", large.as_str(), ""] {
        assert_eq!(echo.invoke(event.to_owned()).await.text(), event);
        echo.reaches("parked").await;
    }
    assert_eq!(host.metric("dormouse_hook_calls_total{hook=\"pre-freeze\"}").await, 3.0);
}

/// A core module that says nothing of a world cannot become a component.
#[tokio::test]
async fn a_core_module_without_a_world_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, ::wat::parse_str("(module (func (export \"handler\")))").unwrap()).unwrap();
    let host = TestHost::start().await;
    let mut deploy = dormouse();
    let refused =
        deploy.arg("deploy").arg("bare").arg(file.path()).args(["--admin", &host.admin]).output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("a core module, not a component"), "{said}");
}

/// Instances of a large component copy the pages that they write, and share all others.
#[tokio::test]
async fn instances_of_a_large_component_share_their_clean_pages() {
    const INSTANCES: u64 = 10;
    let host = TestHost::start().await;
    let one = Kind::Python.deploy(&host, "one", json!({"minInstances": 1})).await;
    one.reaches("parked").await;
    let (resident_before, proportional_before) = host.occupied_kib();
    let settings = json!({"minInstances": INSTANCES, "maxInstances": INSTANCES});
    let many = Kind::Python.deploy(&host, "many", settings).await;
    eventually("all instances parked", async || match many.states().await {
        states if states == ["parked"; INSTANCES as usize] => Ok(()),
        states => Err(format!("{states:?}")),
    })
    .await;
    let (resident, proportional) = host.occupied_kib();
    let each = |after: u64, before: u64| (after - before) / INSTANCES;
    let (resident, own) = (each(resident, resident_before), each(proportional, proportional_before));
    assert!(own * 2 < resident, "each occupies {resident} KiB, and {own} KiB of its own");
}

/// `script` of util-linux runs a command on a terminal.
#[tokio::test]
async fn a_large_component_is_deployed_with_progress_shown() {
    let host = TestHost::start().await;
    let program = dormouse().as_std().get_program().to_str().unwrap().to_owned();
    let component = tests::languages::python().to_str().unwrap();
    let command = format!("{program} deploy large {component} --admin {}", host.admin);
    let shown = tokio::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output().await.unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for step in ["large: upload", "large: compile", "large: deployed revision 1 in "] {
        assert!(shown.contains(step), "no {step:?} in {shown:?}");
    }
}

/// What was random when the component was built must not be the same in every instance of it.
#[tokio::test]
async fn instances_draw_different_random_numbers() {
    for kind in [Kind::Python, Kind::JavaScript, Kind::Hono] {
        let host = TestHost::start().await;
        let mut drawn = Vec::new();
        for name in ["one", "two"] {
            let function = kind.deploy(&host, name, json!({})).await;
            drawn.push(function.script(json!(["random"])).await.results()[0].clone());
        }
        assert_ne!(drawn[0], drawn[1], "{kind:?}");
    }
}

#[tokio::test]
async fn a_timeout_of_fetch_ends_the_wait_and_one_that_is_none_is_refused() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    for kind in [Kind::JavaScript, Kind::Python] {
        let host = TestHost::start().await;
        let function = kind.deploy(&host, "function", json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
        let error = async |timeout: &str| {
            let results = function.script(json!([{"http-get-within": [url, timeout]}])).await.results();
            results[0]["error"].as_str().unwrap_or_default().to_owned()
        };
        let ended = error("0.1").await;
        assert!(ended.to_lowercase().contains("timeout") || ended.contains("timed out"), "{kind:?}: {ended}");
        for wrong in ["-1", "1e30", "NaN", "Infinity"] {
            let refused = error(wrong).await;
            assert!(refused.contains("it must be"), "{kind:?}: {wrong}: {refused}");
        }
        assert_eq!(function.instances().await.len(), 1, "{kind:?}: it goes on");
    }
}

/// The host's own words reach JavaScript and C, which do not see those of `wasi:http`.
#[tokio::test]
async fn fetch_says_why_there_is_no_response() {
    let large = TestServer::start(String::leak("x".repeat(9 << 20)), std::time::Duration::ZERO).await;
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for kind in [Kind::JavaScript, Kind::C] {
        let host = TestHost::start().await;
        let function = kind.deploy(&host, "function", json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
        for (url, why) in [
            (format!("http://{}/", large.address), "larger than 8 MiB"),
            (format!("http://{unused}/"), "connection refused"),
            ("http://example.com/".to_owned(), "example.com is not in allowed-outbound-hosts"),
            ("http://127.0.0.1:99999/".to_owned(), "a port that is none"),
            ("ftp://127.0.0.1/".to_owned(), "URL"),
        ] {
            let results = function.script(json!([{"http-get": url}])).await.results();
            let said = results[0]["error"].as_str().unwrap_or_default();
            assert!(said.contains(why), "{kind:?}: {url}: {results}");
        }
    }
}
