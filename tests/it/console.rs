//! The console, in a real browser.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::{Reply, TestHost, eventually};

const FROM_NPM: [&str; 2] = ["puppeteer-core@24.31.0", "axe-core@4.14.1"];
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/fixtures/console/browser.js");
/// All pages, of which the function's is that of one with instances, versions and lines.
const PAGES: [(&str, &str); 8] = [
    ("keys", "/console/keys"),
    ("functions", "/"),
    ("function", "/console/functions/probe"),
    ("instances", "/console/instances"),
    ("bill", "/console/bill?function=probe"),
    ("logs", "/console/logs?function=probe"),
    ("host", "/console/overview"),
    ("changes", "/console/audit"),
];

/// A browser with one page.
struct Browser {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Browser {
    fn open(host: &TestHost) -> Browser {
        static MODULES: OnceLock<PathBuf> = OnceLock::new();
        let modules = MODULES.get_or_init(|| tests::languages::node_modules_with(&FROM_NPM));
        let shots = tests::target().join("console");
        std::fs::create_dir_all(&shots).unwrap();
        let mut command = Command::new("node");
        command.env("NODE_PATH", modules).args([DRIVER, &host.admin]).arg(shots).arg(chromium());
        // It is not killed but ends with its input: then it closes its browser.
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = pipes.spawn().expect("node runs");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Browser { input, output: BufReader::new(output).lines(), _child: child }
    }

    async fn order(&mut self, order: Value) -> Value {
        self.input.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let line = self.output.next_line().await.unwrap().unwrap_or_else(|| panic!("the browser ended at {order}"));
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("ok").is_some(), "{order}: {answer}");
        answer["ok"].clone()
    }

    async fn goto(&mut self, path: &str) {
        self.order(json!(["goto", path])).await;
    }

    async fn click(&mut self, selector: &str) {
        self.order(json!(["click", selector])).await;
    }

    /// Presses what leads to another page.
    async fn leave(&mut self, selector: &str) {
        self.order(json!(["leave", selector])).await;
    }

    async fn fill(&mut self, selector: &str, text: &str) {
        self.order(json!(["fill", selector, text])).await;
    }

    async fn choose(&mut self, selector: &str, value: &str) {
        self.order(json!(["choose", selector, value])).await;
    }

    /// Waits until the element shows these words.
    async fn shows(&mut self, selector: &str, words: &str) {
        self.order(json!(["shows", selector, words])).await;
    }

    async fn text(&mut self, selector: &str) -> String {
        self.order(json!(["text", selector])).await.as_str().unwrap().to_owned()
    }

    async fn path(&mut self) -> String {
        self.order(json!(["path"])).await.as_str().unwrap().to_owned()
    }

    /// Nothing failed in the page, and its policy refused nothing.
    async fn is_content(&mut self) {
        assert_eq!(self.order(json!(["wrong"])).await, json!([]));
    }
}

fn chromium() -> &'static str {
    let found =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|path| std::fs::exists(path).unwrap());
    found.expect("Chromium is installed: Debian's package `chromium`")
}

/// A host with the probe, which was called, published and named.
async fn with_probe() -> TestHost {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    for script in [json!(["count"]), json!([{"print": "a line"}]), json!([{"fail": "not today"}])] {
        probe.script(script).await;
    }
    let publish = host.client.post(format!("{}/v1/functions/probe/versions", host.admin)).body("{}").send().await;
    assert_eq!(publish.unwrap().status(), 201);
    host
}

#[tokio::test]
async fn a_component_is_deployed_by_upload_and_invoked() {
    let (host, folder) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("hello.wasm");
    std::fs::write(&file, tests::component("example-hello")).unwrap();
    let mut browser = Browser::open(&host);
    browser.goto("/").await;
    browser.shows("#functions", "No function is deployed yet").await;
    // What is no component is told beside the form.
    let other = folder.path().join("other.wasm");
    std::fs::write(&other, "no component").unwrap();
    browser.fill("[data-upload] [name=name]", "hello").await;
    browser.order(json!(["file", "[data-upload] [type=file]", other])).await;
    browser.click("[data-upload] button").await;
    browser.shows("[data-upload] .told", "component").await;
    browser.order(json!(["wrong"])).await;
    browser.order(json!(["file", "[data-upload] [type=file]", file])).await;
    browser.leave("[data-upload] button").await;
    assert_eq!(browser.path().await, "/console/functions/hello");

    browser.fill("[name=event]", "<b>Ada</b>").await;
    browser.click("[data-invoke] button").await;
    browser.shows("[data-told=status]", "200 ok").await;
    assert_eq!(browser.text("[data-told=body]").await, "Hello, <b>Ada</b>!\n");
    assert!(browser.text("[data-told=start]").await.contains("cold"));
    browser.shows("#lanes", "parked").await;
    // The event is there again in a page that is loaded anew.
    browser.goto("/console/functions/hello").await;
    browser.choose("[name=recent]", "0").await;
    assert_eq!(browser.order(json!(["value", "[name=event]"])).await, "<b>Ada</b>");
    browser.goto("/").await;
    browser.shows("[data-function=hello]", "parked").await;
    browser.is_content().await;
}

#[tokio::test]
async fn a_hook_is_disabled_and_what_is_wrong_is_told_beside_its_field() {
    let host = with_probe().await;
    let settings = async || host.get("/v1/functions/probe").await.json();
    let mut browser = Browser::open(&host);
    browser.goto("/console/functions/probe").await;
    let choices = browser.text("[name='lifecycle.preFreeze.handler']").await;
    assert!(choices.contains("pre-freeze (default)") && choices.contains("disabled"), "{choices}");
    browser.choose("[name='lifecycle.preFreeze.handler']", "disabled").await;
    browser.fill("[name='lifecycle.preStop.timeoutMs']", "1234").await;
    browser.fill("[name=environment]", "COLOUR=red").await;
    browser.leave("[data-settings] button").await;
    let set = settings().await;
    assert_eq!(set["lifecycle"]["preFreeze"]["handler"], "");
    assert_eq!(
        (&set["lifecycle"]["preStop"]["timeoutMs"], &set["environment"]["COLOUR"]),
        (&json!(1234), &json!("red"))
    );
    assert_eq!(browser.order(json!(["value", "[name='lifecycle.preFreeze.handler']"])).await, "disabled");

    // Values of several lines stay as they are when another one changes.
    let lines = "first\nsecond=2\\n";
    host.function("probe").configure(json!({"environment": {"CERT": lines}, "description": "two\nlines"})).await;
    browser.goto("/console/functions/probe").await;
    let shown = browser.order(json!(["value", "[name=environment]"])).await;
    browser.fill("[name=environment]", &format!("{}NEW=1\\n2", shown.as_str().unwrap())).await;
    browser.leave("[data-settings] button").await;
    let set = settings().await;
    assert_eq!((&set["environment"]["CERT"], &set["environment"]["NEW"]), (&json!(lines), &json!("1\n2")));
    assert_eq!(set["description"], "two\nlines");

    browser.fill("[name=memoryMb]", "999999").await;
    browser.click("[data-settings] button").await;
    browser.shows("label:has([name=memoryMb]) .wrong", "memoryMb").await;
    assert_eq!(settings().await["memoryMb"], 128);
    browser.order(json!(["wrong"])).await;
    // Back to what it was: left empty, a number is the default again.
    browser.fill("[name=memoryMb]", "128").await;
    browser.choose("[name='lifecycle.preFreeze.handler']", "default").await;
    browser.leave("[data-settings] button").await;
    assert_eq!(settings().await["lifecycle"]["preFreeze"].get("handler"), None);
    browser.is_content().await;
}

#[tokio::test]
async fn an_instance_is_seen_active_and_parked_suspended_and_stopped() {
    let host = with_probe().await;
    let probe = host.function("probe");
    let mut browser = Browser::open(&host);
    browser.goto("/console/functions/probe").await;
    let call = probe.script_in_background(json!([{"sleep-ms": 3000}]));
    browser.shows("[data-state=active]", "active").await;
    let reply = call.await.unwrap();
    assert_eq!(reply.status, 200);
    browser.shows("[data-state=parked]", "parked").await;
    // The request is drawn on its lane, with what it was executing: next to nothing, because it slept.
    let request = format!("[data-state=parked] [data-request='{}']", reply.header("dormouse-request-id"));
    let wide = |part: &str| format!("Number(document.querySelector(\"{request} rect{part}\").getAttribute('width'))");
    eventually("the request is drawn", async || {
        let count = browser.order(json!(["count", &request])).await;
        if count == 1 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let all = browser.order(json!(["evaluate", wide("")])).await.as_f64().unwrap();
    let executed = browser.order(json!(["evaluate", wide(".executed")])).await.as_f64().unwrap();
    // 3 of 120 seconds of 1,000 units.
    assert!((20.0..35.0).contains(&all) && executed < all / 4.0, "{executed} of {all}");
    browser.leave("[data-path$='/suspend']").await;
    browser.shows("#summary", "Suspended").await;
    assert_eq!(host.get("/v1/functions/probe").await.json()["suspended"], true);
    browser.leave("[data-path$='/resume']").await;
    assert_eq!(host.get("/v1/functions/probe").await.json()["suspended"], false);
    browser.shows("[data-state=parked]", "parked").await;
    browser.click("[data-state=parked] [data-path$='/stop']").await;
    eventually("the instance is gone", async || {
        let instances = probe.instances().await;
        if instances.is_empty() { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    browser.is_content().await;
}

#[tokio::test]
async fn an_alias_is_moved_and_a_trigger_is_fired() {
    let host = with_probe().await;
    let nightly = json!({"nightly": {"timer": {"cron": "0 0 4 1 1 *"}}});
    host.deploy("hello", "example-hello", json!({"triggers": nightly})).await;
    host.function("probe").configure(json!({"memoryMb": 256})).await;
    let mut browser = Browser::open(&host);
    browser.goto("/console/functions/hello").await;
    browser.click("[data-path='/v1/functions/hello/triggers/nightly/fire']").await;
    browser.shows("#triggers", "succeeded").await;
    browser.shows("#invocations", "succeeded").await;
    browser.goto("/console/functions/probe").await;
    browser.leave("[data-path='/v1/functions/probe/versions']").await;
    browser.fill("form[data-alias] [name=alias]", "prod").await;
    browser.choose("form[data-alias] [name=version]", "1").await;
    browser.choose("form[data-alias] [name=other]", "2").await;
    browser.order(json!(["slide", "form[data-alias] [name=weight]", 25])).await;
    assert_eq!(browser.text("form[data-alias] [name=shown]").await, "25 %");
    browser.click("form[data-alias] button").await;
    browser.shows("#aliases", "2 gets 25 %").await;
    let alias = host.get("/v1/functions/probe/aliases/prod").await.json();
    assert_eq!((&alias["version"], &alias["weights"]["2"]), (&json!("1"), &json!(0.25)));
    browser.is_content().await;
}

#[tokio::test]
async fn a_key_is_made_shown_once_rotated_and_revoked() {
    let host = with_probe().await;
    host.function("probe").configure(json!({"auth": "key"})).await;
    let works = async |key: &str| {
        host.function("probe").request(r#"{"do": []}"#).bearer_auth(key).send().await.unwrap().status() == 200
    };
    let mut browser = Browser::open(&host);
    browser.goto("/console/functions/probe").await;
    browser.leave("a[href='/console/keys?function=probe']").await;
    browser.fill("[data-key] [name=description]", "for tests").await;
    browser.click("[data-key] button").await;
    browser.shows("#secret output", "dmk-").await;
    let made = browser.text("#secret output").await;
    assert!(works(&made).await, "{made}");
    browser.shows("#keys table", "for tests").await;
    browser.goto("/console/keys?function=probe").await;
    assert!(!browser.text("main").await.contains(&made), "a key is shown once");
    browser.shows("table", "for tests").await;
    browser.click("[data-path$='/rotate']").await;
    browser.shows("#secret output", "dmk-").await;
    let rotated = browser.text("#secret output").await;
    assert!(rotated != made && works(&rotated).await && !works(&made).await);
    browser.leave("[data-method=DELETE]").await;
    assert!(!works(&rotated).await, "a revoked key works no more");
    // What is wrong is told beside its field or below the form.
    browser.goto("/console/keys").await;
    browser.fill("[data-key] [name=functions]", "not a name").await;
    browser.click("[data-key] button").await;
    browser.shows("[data-key]", "not a name").await;
    browser.order(json!(["wrong"])).await;
    browser.is_content().await;
}

#[tokio::test]
async fn the_bill_is_had_as_tables_for_spreadsheets() {
    let host = with_probe().await;
    host.function("probe").reaches("parked").await;
    let total = host.get("/v1/usage?function=probe").await.json()["total"].clone();
    let table = async |query: &str| -> Vec<std::collections::HashMap<String, String>> {
        let reply = host.get(&format!("/console/bill.csv?{query}")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/csv; charset=utf-8"), "{reply:?}");
        assert!(reply.header("content-disposition").starts_with("attachment"), "{reply:?}");
        let text = reply.text();
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let head = lines.next().unwrap();
        lines.map(|line| head.iter().cloned().zip(line).collect()).collect()
    };
    let by_function = table("of=functions").await;
    assert_eq!((by_function.len(), by_function[0]["key"].as_str()), (1, "probe"), "{by_function:?}");
    assert_eq!(by_function[0]["requests"], total["requests"].to_string());
    assert_eq!(table("of=time&days=1").await.len(), 1);
    let windows = table("of=windows&function=probe").await;
    assert_eq!(windows.len().to_string(), total["windows"].to_string(), "{windows:?}");
    assert_eq!(table("of=requests&function=probe").await.len(), 3);
    for wrong in ["of=everything", "of=time&days=0", "of=time&days=week"] {
        let refused = host.get(&format!("/console/bill.csv?{wrong}")).await;
        assert!(refused.status == 400 && refused.text().contains("1 to 366"), "{wrong}: {refused:?}");
    }
    // More than the host reads from the ledger at once.
    let probe = host.function("probe");
    for _ in 0..21 {
        futures::future::join_all((0..50).map(|_| probe.script(json!([])))).await;
    }
    // A caller has its answer a moment before its record is there.
    eventually("all records", async || {
        let requests = table("of=requests&function=probe").await;
        let distinct: std::collections::HashSet<&str> = requests.iter().map(|row| row["id"].as_str()).collect();
        assert_eq!(requests.len(), distinct.len(), "each is there once");
        if requests.len() == 1053 { Ok(()) } else { Err(requests.len().to_string()) }
    })
    .await;
    let mut browser = Browser::open(&host);
    browser.goto("/console/bill?function=probe").await;
    assert_eq!(browser.order(json!(["count", "a[download]"])).await, 4);
    browser.is_content().await;
}

#[tokio::test]
async fn the_newest_failures_and_requests_are_shown_of_many() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"concurrency": 10})).await;
    for _ in 0..30 {
        futures::future::join_all((0..10).map(|_| probe.script(json!([])))).await;
    }
    let failed = probe.script(json!([{"fail": "the newest"}])).await.header("dormouse-request-id").to_owned();
    assert!(host.get("/console/overview").await.text().contains(&failed));
    assert!(host.get("/console/bill?function=probe").await.text().contains(&failed));
    let newest = host.get("/v1/usage/invocations?newest=true&limit=1").await.json();
    assert_eq!(newest["invocations"][0]["request"], failed.as_str(), "{newest}");
}

#[tokio::test]
async fn older_lines_of_a_log_come_step_by_step() {
    let host = with_probe().await;
    let probe = host.function("probe");
    for hundreds in 0..12 {
        let steps: Vec<Value> =
            (0..100).map(|one| json!({"print": format!("number {}", hundreds * 100 + one)})).collect();
        probe.script(json!(steps)).await.results();
    }
    let mut browser = Browser::open(&host);
    browser.goto("/console/logs?function=probe&text=number").await;
    browser.shows(".log", "number 1199").await;
    assert!(!browser.text(".log").await.contains("number 699\n"));
    browser.click(".older").await;
    browser.shows(".log", "number 699").await;
    browser.click(".older").await;
    browser.shows(".log", "number 0").await;
    let shown = browser.text(".log").await;
    let places: Vec<usize> =
        [0, 700, 1199].iter().map(|number| shown.find(&format!("number {number}")).unwrap()).collect();
    assert!(places.is_sorted(), "the oldest come first: {places:?}");
    browser.is_content().await;
}

#[tokio::test]
async fn what_a_function_wrote_is_text_wherever_it_is_shown() {
    let host = with_probe().await;
    let probe = host.function("probe");
    let evil = "<img src=x onerror=\"document.title='taken'\">\u{1b}[31m\u{202e}end";
    probe.script(json!([{"print": evil}])).await;
    probe.script(json!([{"fail": evil}])).await;
    let mut browser = Browser::open(&host);
    browser.goto("/console/logs?function=probe").await;
    browser.shows(".log", "<img src=x onerror").await;
    let shown = browser.text(".log").await;
    assert!(shown.contains("\\u001b[31m\\u202eend"), "{shown}");
    assert_eq!(browser.order(json!(["count", ".log img"])).await, 0);
    probe.script(json!([{"print": "a later line"}])).await;
    browser.shows(".log", "a later line").await;
    browser.goto("/console/logs?function=probe&text=later").await;
    browser.shows(".log", "a later line").await;
    assert!(!browser.text(".log").await.contains("<img"));
    // From a request that failed to its lines.
    browser.goto("/console/overview").await;
    browser.shows("#failures", "function-failed").await;
    browser.leave("#failures a").await;
    assert!(browser.path().await.contains("&request="));
    browser.goto("/console/functions/probe").await;
    browser.fill("[name=event]", &json!({"do": [{"fail": evil}]}).to_string()).await;
    browser.click("[data-invoke] button").await;
    browser.shows("[data-told=status]", "500 function-failed").await;
    assert!(browser.text("[data-told=body]").await.contains("<img"));
    assert_eq!(browser.order(json!(["evaluate", "document.title"])).await, "probe · Dormouse");
    browser.is_content().await;
}

#[tokio::test]
async fn pages_fit_wide_and_narrow_light_and_dark_and_are_accessible() {
    let host = with_probe().await;
    let mut browser = Browser::open(&host);
    for (name, path) in PAGES {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
            browser.order(json!(["size", width, scheme])).await;
            browser.goto(path).await;
            assert_eq!(browser.order(json!(["overflow"])).await, 0, "{path} at {width}");
            let serious = browser.order(json!(["axe"])).await;
            assert_eq!(serious, json!([]), "{path}, {width}, {scheme}");
            browser.order(json!(["shot", format!("{name}-{width}-{scheme}")])).await;
        }
    }
    // By keyboard: the first stop leads past the navigation.
    browser.goto("/").await;
    browser.order(json!(["press", "Tab"])).await;
    assert!(browser.order(json!(["focused"])).await.as_str().unwrap().contains("Skip to the page"));
    browser.is_content().await;
}

#[tokio::test]
async fn whoever_has_no_key_sees_nothing_and_a_session_ends_with_its_key() {
    let host = TestHost::builder().flag("--admin-token=a-token-of-an-operator").start().await;
    let bare = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sent = async |request: reqwest::RequestBuilder| Reply::of(request.send().await.unwrap()).await;
    let away = sent(bare.get(format!("{}/console/overview", host.admin))).await;
    assert_eq!((away.status, away.header("location")), (303, "/console/sign-in"));
    let sign_in = |key: &str| bare.post(format!("{}/console/sign-in", host.admin)).body(format!("key={key}"));
    let wrong = sent(sign_in("guessed")).await;
    assert!(wrong.status == 401 && wrong.text().contains("no access key"), "{wrong:?}");
    // Nor may a page without an origin of its own, such as one in a sandbox, sign anybody in.
    for origin in ["http://evil.example", "null"] {
        let forged = sent(sign_in("a-token-of-an-operator").header("origin", origin)).await;
        assert!(forged.status == 403 && forged.header("set-cookie").is_empty(), "{origin}: {forged:?}");
    }

    let mut keys = bare.post(format!("{}/v1/keys", host.admin)).bearer_auth("a-token-of-an-operator");
    keys = keys.body(json!({"functions": ["shop-*"], "rights": ["manage"]}).to_string());
    let key = sent(keys).await.json();
    for name in ["shop-a", "bank-a"] {
        let url = format!("{}/v1/functions/{name}/code", host.admin);
        let put = bare.put(url).bearer_auth("a-token-of-an-operator").body(tests::component("guest-probe"));
        assert_eq!(sent(put).await.status, 201);
    }
    let signed = sent(sign_in(key["token"].as_str().unwrap())).await;
    let cookie = signed.header("set-cookie").to_owned();
    assert!(signed.status == 303 && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{signed:?}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let get = async |path: &str| sent(bare.get(format!("{}{path}", host.admin)).header("cookie", &cookie)).await;
    let list = get("/").await;
    assert!(list.text().contains("shop-a") && !list.text().contains("bank-a"), "{list:?}");
    assert_eq!(get("/console/functions/bank-a").await.status, 403);
    assert_eq!(get("/console/functions/shop-a").await.status, 200);
    assert!(!get("/console/instances?function=bank-a").await.text().contains("data-instance"));
    let overview = get("/console/overview").await.text();
    assert!(overview.contains("<dd>1</dd>") && !overview.contains("Memory of the host"), "{overview}");
    let followed = bare.get(format!("{}/console/functions/bank-a", host.admin)).header("cookie", &cookie);
    assert_eq!(sent(followed.header("accept", "text/event-stream")).await.status, 403);
    // A function does not get the cookie, though a browser sends it to every port of this machine.
    let web = bare.put(format!("{}/v1/functions/shop-web/code", host.admin)).bearer_auth("a-token-of-an-operator");
    assert_eq!(sent(web.body(tests::component("guest-http-02"))).await.status, 201);
    let about = bare.post(format!("{}/fn/shop-web/about/x", host.data)).header("cookie", format!("own=1; {cookie}"));
    let about = sent(about).await.text();
    assert!(about.contains("own=1") && !about.contains("dormouse-session"), "{about}");

    // The cookie alone changes nothing: another site's page could make the browser send it.
    let suspend = || bare.post(format!("{}/v1/functions/shop-a/suspend", host.admin)).header("cookie", &cookie);
    assert!(sent(suspend()).await.problem(403, "forbidden").contains("dormouse-csrf"));
    let page = get("/").await.text();
    let token = page.split("name=\"csrf\" content=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(sent(suspend().header("dormouse-csrf", &token)).await.status, 200);
    let other = bare.post(format!("{}/v1/functions/bank-a/suspend", host.admin)).header("cookie", &cookie);
    sent(other.header("dormouse-csrf", &token)).await.problem(403, "forbidden");
    // The audit log has the key's name.
    let entries = bare.get(format!("{}/v1/audit", host.admin)).bearer_auth("a-token-of-an-operator");
    let entries = sent(entries).await.json();
    let own = entries["entries"].as_array().unwrap().iter().find(|entry| entry["action"] == "suspendFunction").unwrap();
    assert_eq!(own["operator"], key["id"]);

    let revoke = bare.delete(format!("{}/v1/keys/{}", host.admin, key["id"].as_str().unwrap()));
    assert_eq!(sent(revoke.bearer_auth("a-token-of-an-operator")).await.status, 204);
    assert_eq!(get("/").await.status, 303);
}

#[tokio::test]
async fn an_open_page_ends_when_its_session_does() {
    let host = TestHost::builder().flag("--admin-token=a-token-of-an-operator").start().await;
    let bare = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sign_in = bare.post(format!("{}/console/sign-in", host.admin)).body("key=a-token-of-an-operator");
    let signed = Reply::of(sign_in.send().await.unwrap()).await;
    let cookie = signed.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = bare.get(format!("{}/console/overview", host.admin)).header("cookie", &cookie);
    let mut page = page.header("accept", "text/event-stream").send().await.unwrap();
    assert!(page.chunk().await.unwrap().is_some(), "it is followed");
    let sign_out = bare.post(format!("{}/console/sign-out", host.admin)).header("cookie", &cookie);
    assert_eq!(sign_out.send().await.unwrap().status(), 303);
    let ended = async { while page.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(crate::support::PATIENCE, ended).await.expect("the page ends with its session");
}

#[tokio::test]
async fn a_page_says_what_browsers_must_not_do_with_it() {
    let host = TestHost::start().await;
    let page = host.get("/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!((page.header("x-content-type-options"), page.header("x-frame-options")), ("nosniff", "DENY"));
    let text = page.text();
    assert!(!text.contains("http://") && !text.contains("https://"), "nothing is fetched from elsewhere: {text}");
    assert!(!text.contains(" style=") && !text.contains(" onclick="), "{text}");
    assert_eq!(host.get("/console/nothing").await.status, 404);
    assert_eq!(host.get("/console/functions/none").await.status, 404);
    assert_eq!(host.get("/console/functions/%00").await.status, 404);
    assert_eq!(host.get("/console/bill?function=a%20b").await.status, 404);
    let long = "a".repeat(30_000);
    assert_eq!(host.get(&format!("/console/bill?function={long}")).await.status, 404);
    assert_eq!(host.get("/?page=999999999999").await.status, 200);
    let deleted = host.client.delete(format!("{}/console/assets/console.js", host.admin)).send().await.unwrap();
    assert_eq!(deleted.status(), 405);
    assert_eq!(host.get("/console/assets/../mod.rs").await.status, 404);
    // Pages of other origins and foreign names are kept out, as on the API.
    let foreign = host.client.get(&host.admin).header("host", "evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
}

#[tokio::test]
async fn invoking_through_the_api_answers_what_came_of_it() {
    let host = with_probe().await;
    let web = host.deploy("web", "guest-http-02", json!({})).await;
    let url = |name: &str| format!("{}/v1/functions/{name}/invoke", host.admin);
    let ask = async |name: &str, body: Value| {
        Reply::of(host.client.post(url(name)).body(body.to_string()).send().await.unwrap()).await
    };
    let event = json!({"event": json!({"do": [{"print": "a line"}, "count"]}).to_string()});
    let told = ask("probe", event).await.json();
    assert_eq!((&told["status"], &told["code"], &told["lines"]), (&json!(200), &json!("ok"), &json!(["a line"])));
    assert!(
        !told["request"].as_str().unwrap().is_empty() && told["serverTiming"].as_str().unwrap().contains("exec;dur=")
    );
    let failed = ask("probe", json!({"event": json!({"do": [{"fail": "no"}]}).to_string()})).await.json();
    assert_eq!(
        (&failed["status"], &failed["code"], &failed["body"]),
        (&json!(500), &json!("function-failed"), &json!("no"))
    );
    let about = ask("web", json!({"method": "POST", "path": "/about/x?q=1", "headers": {"x-one": "1"}})).await.json();
    assert_eq!(about["status"], 201, "{about}");
    assert!(about["body"].as_str().unwrap().contains("/about/x?q=1"), "{about}");
    for (body, part) in [
        (json!({"path": "x"}), "must begin with `/`"),
        (json!({"method": "A B"}), "no request can have"),
        (json!({"headers": {"a b": "c"}}), "no field may have"),
        (json!({"event": 5}), "cannot be read"),
    ] {
        assert!(ask("web", body).await.problem(400, "invalid-request").contains(part));
    }
    ask("none", json!({})).await.problem(404, "function-not-found");
    // A key that may call the function and not read its log gets no lines.
    let body = json!({"functions": ["probe"], "rights": ["invoke"]}).to_string();
    let made = host.client.post(format!("{}/v1/keys", host.admin)).body(body).send().await.unwrap();
    let token = Reply::of(made).await.json()["token"].as_str().unwrap().to_owned();
    let event = json!({"event": json!({"do": [{"print": "private"}]}).to_string()}).to_string();
    let told = host.client.post(url("probe")).bearer_auth(token).body(event).send().await.unwrap();
    assert_eq!(Reply::of(told).await.json()["lines"], json!([]));
    let large = ask("web", json!({"method": "POST", "path": "/echo", "event": "a".repeat(400_000)})).await.json();
    assert!(large["body"].as_str().unwrap().len() >= 256 << 10, "{}", large["code"]);
    assert_eq!(web.instances().await.len(), 1);
    let audit = host.get("/v1/audit").await.text();
    assert!(!audit.contains("invokeFunction"), "a call is no change: {audit}");
}
