//! Triggers: timers that hand their ticks to the queue, and addresses of a function's own.

use serde_json::{Value, json};

use crate::support::{Caller, Kind, Reply, TestHost, dormouse, eventually};

fn at(function: &str, rest: &str) -> String {
    format!("/v1/functions/{function}{rest}")
}

/// The asynchronous invocations of a function, the newest first.
async fn invocations(host: &TestHost, function: &str) -> Vec<Value> {
    host.get(&at(function, "/invocations?limit=1000")).await.json()["invocations"].as_array().unwrap().clone()
}

async fn triggers(host: &TestHost, function: &str) -> Vec<Value> {
    host.get(&at(function, "/triggers")).await.json()["triggers"].as_array().unwrap().clone()
}

/// Waits until so many invocations of a function have succeeded; returns them, the newest first.
async fn succeeded(host: &TestHost, function: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} invocations that succeeded"), async || {
        let mut found = invocations(host, function).await;
        found.retain(|one| one["state"] == "succeeded");
        if found.len() >= count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// A request to the data plane under a host name.
async fn fetch(host: &TestHost, method: &str, name: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    let request = host.client.request(method.parse().unwrap(), format!("{}{path}", host.data)).header("host", name);
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Reply::of(request.send().await.expect("the data plane answers")).await
}

#[tokio::test]
async fn a_timer_ticks_at_its_times_and_each_tick_once() {
    let host = TestHost::start().await;
    let small = tests::text::Small::PLAIN.component();
    let timer = json!({"timer": {"cron": "* * * * * *", "payload": "hello"}});
    let reply = host.put_code("clock", small, &json!({"triggers": {"each-second": timer}})).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    succeeded(&host, "clock", 2).await;
    let host = host.kill_and_restart().await;
    let all = succeeded(&host, "clock", 5).await;
    let mut ids: Vec<&str> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let newest = ids[0].to_owned();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "no tick comes twice: {all:?}");
    assert!(ids.iter().all(|id| id.starts_with("each-second~2")), "{ids:?}");
    let shown = host.get(&at("clock", &format!("/invocations/{newest}"))).await.json();
    let event: Value = serde_json::from_str(shown["event"]["data"].as_str().unwrap()).unwrap();
    assert_eq!((&event["triggerName"], &event["payload"]), (&json!("each-second"), &json!("hello")));
    assert_eq!(format!("each-second~{}", event["triggerTime"].as_str().unwrap()), newest);
    let trigger = triggers(&host, "clock").await.remove(0);
    assert_eq!((&trigger["name"], trigger["next"].as_array().unwrap().len()), (&json!("each-second"), 5));
    assert!(!trigger["runs"].as_array().unwrap().is_empty(), "{trigger}");
    let records = host.invocations().await;
    assert!(records.iter().all(|record| record["calledBy"] == "trigger"), "{records:?}");
    // What was ticked is not ticked again, even by a host that has forgotten the invocations.
    let off = host.function("clock").configure(json!({"triggers": {"each-second": {"enabled": false}}})).await;
    assert_eq!(off.status, 200, "{off:?}");
    eventually("no further tick", async || {
        let before = invocations(&host, "clock").await.len();
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let after = invocations(&host, "clock").await.len();
        if before == after { Ok(()) } else { Err(format!("{before} to {after}")) }
    })
    .await;
    assert_eq!(triggers(&host, "clock").await[0]["next"], Value::Null);
}

#[tokio::test]
async fn ticks_that_were_missed_are_made_up_for_as_the_timer_says() {
    let host = TestHost::start().await;
    for (name, missed) in [("skip", "skip"), ("once", "once"), ("all", "all")] {
        let timer = json!({"timer": {"everyMs": 1000, "missed": missed}});
        let small = tests::text::Small::PLAIN.component();
        let reply = host.put_code(name, small, &json!({"triggers": {"t": timer}})).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    for name in ["skip", "once", "all"] {
        succeeded(&host, name, 1).await;
    }
    let (builder, before) = (host.same(), std::time::SystemTime::now());
    host.signal(rustix::process::Signal::KILL);
    drop(host.ended().await);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let host = builder.start().await;
    let up = std::time::SystemTime::now();
    let mut while_down = Vec::new();
    for name in ["skip", "once", "all"] {
        succeeded(&host, name, 2).await;
        let mut count = 0;
        for one in invocations(&host, name).await {
            let tick = one["id"].as_str().unwrap().strip_prefix("t~").unwrap().to_owned();
            let tick = humantime::parse_rfc3339(&tick).unwrap();
            // A second at either end may belong to either side.
            let second = std::time::Duration::from_secs(1);
            count += usize::from(tick > before + second && tick < up - second);
        }
        while_down.push(count);
    }
    assert!(while_down[0] == 0 && while_down[1] <= 1 && while_down[2] >= 2, "{while_down:?}");
}

#[tokio::test]
async fn a_timer_is_fired_by_hand_and_an_address_is_called() {
    let host = TestHost::start().await;
    let both = json!({"triggers": {
        "yearly": {"timer": {"cron": "0 0 1 1 *", "timezone": "Asia/Shanghai"}, "enabled": false},
        "site": {"http": {"path": "/site/*"}},
    }});
    host.deploy("probe", "guest-probe", both).await;
    let fired = host.post(&at("probe", "/triggers/yearly/fire")).await;
    assert_eq!(fired.status, 202, "{fired:?}");
    let id = fired.json()["id"].clone();
    let run = triggers(&host, "probe").await.into_iter().find(|one| one["name"] == "yearly").unwrap();
    assert_eq!(run["runs"][0]["id"], id);
    host.post(&at("probe", "/triggers/none/fire")).await.problem(404, "trigger-not-found");
    let detail = host.post(&at("probe", "/triggers/site/fire")).await.problem(400, "invalid-request");
    assert!(detail.contains("`/site/*` is an address"), "{detail}");
    host.get(&at("nobody", "/triggers")).await.problem(404, "function-not-found");
    let run = async |arguments: &[&str]| {
        let output = dormouse().args(arguments).args(["--admin", &host.admin]).output().await.unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    };
    let (ok, printed) = run(&["triggers", "list", "probe"]).await;
    assert!(ok && printed.contains("0 0 1 1 * Asia/Shanghai") && printed.contains("/site/*"), "{printed}");
    let (ok, printed) = run(&["triggers", "fire", "probe", "yearly"]).await;
    assert!(ok && printed.trim().len() == 36, "{printed}");
    let set = ["configure", "probe", "--set", "triggers.my-timer.timer.every-ms=60000"];
    let (ok, printed) = run(&set).await;
    assert!(ok, "{printed}");
    assert_eq!(triggers(&host, "probe").await[0]["name"], "my-timer");
    let (ok, printed) = run(&["configure", "probe", "--set", "triggers.my-timer=null"]).await;
    assert!(ok && triggers(&host, "probe").await.len() == 2, "{printed}");
}

#[tokio::test]
async fn a_trigger_that_makes_no_sense_is_refused_in_words() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    for (trigger, part) in [
        (json!({"x": {}}), "`triggers.x`: a trigger has either `timer` or `http`"),
        (json!({"x": {"timer": {"cron": "* *"}}}), "`* *` is no cron expression"),
        (json!({"x": {"timer": {"cron": "0 3 * * *", "timezone": "Berlin"}}}), "`Berlin` is no time zone"),
        (json!({"not a name": {"http": {}}}), "`not a name` is not a trigger's name"),
        (json!({"x": {"http": {"path": "/fn/x"}}}), "cannot be below `/invoke` or `/fn`"),
    ] {
        let detail = probe.configure(json!({"triggers": trigger})).await.problem(422, "settings-refused");
        assert!(detail.contains(part), "{detail}");
    }
    let taken = json!({"triggers": {"site": {"http": {"host": "a.example", "path": "/x/*"}}}});
    assert_eq!(probe.configure(taken.clone()).await.status, 200);
    let other = host.deploy("other", "guest-probe", json!({})).await;
    let detail = other.configure(taken.clone()).await.problem(422, "settings-refused");
    assert!(detail.contains("function `probe` has the address `a.example/x/*`"), "{detail}");
    assert_eq!(probe.configure(json!({"triggers": {"site": {"enabled": false}}})).await.status, 200);
    assert_eq!(other.configure(taken).await.status, 200, "nobody has it any more");
    let detail =
        probe.configure(json!({"triggers": {"site": {"enabled": true}}})).await.problem(422, "settings-refused");
    assert!(detail.contains("function `other` has the address"), "{detail}");
}

#[tokio::test]
async fn an_address_leads_to_its_function_the_longest_path_first() {
    let host = TestHost::start().await;
    let at_host = |path: &str| json!({"http": {"host": "site.example.com", "path": path, "methods": ["GET", "POST"]}});
    let a = Kind::Http02.deploy(&host, "a", json!({"triggers": {"site": at_host("/*")}})).await;
    assert_eq!(host.post("/v1/functions/a/versions").await.status, 201);
    let mut api = at_host("/about/*");
    api["qualifier"] = json!("1");
    let anywhere = json!({"http": {"path": "/about"}});
    let settings = json!({"memoryMb": 96, "triggers": {"api": at_host("/about/x/*"), "any": anywhere}});
    Kind::Http02.deploy(&host, "b", settings).await;
    assert_eq!(a.configure(json!({"triggers": {"versioned": api}})).await.status, 200);
    let who = async |name: &str, path: &str| {
        let reply = fetch(&host, "GET", name, path, &[]).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let seen = reply.json();
        let field = |name: &str| {
            let fields = seen["fields"].as_array().unwrap();
            fields.iter().find(|field| field[0] == name).map(|field| field[1].as_str().unwrap().to_owned()).unwrap()
        };
        assert_eq!(seen["path"], path, "the function sees all of it");
        (field("x-fc-function-name"), field("x-fc-version-id"))
    };
    let is = |function: &str, version: &str| (function.to_owned(), version.to_owned());
    assert_eq!(who("Site.Example.com:8080", "/about").await, is("a", "LATEST"));
    assert_eq!(who("site.example.com", "/about/y?q=1").await, is("a", "1"));
    assert_eq!(who("site.example.com", "/about/x/y").await, is("b", "LATEST"));
    assert_eq!(who("other.example.com", "/about").await, is("b", "LATEST"), "an address of any host name");
    fetch(&host, "GET", "other.example.com", "/about/x", &[]).await.problem(404, "not-found");
    let refused = fetch(&host, "DELETE", "site.example.com", "/about", &[]).await;
    assert_eq!(refused.header("allow"), "GET, POST");
    refused.problem(405, "method-not-allowed");
    // What every function has comes first, under any name.
    assert_eq!(fetch(&host, "GET", "site.example.com", "/fn/b/about", &[]).await.status, 201);
    let later = [("dormouse-invocation-type", "async")];
    assert_eq!(fetch(&host, "GET", "site.example.com", "/about", &later).await.status, 202);
    let mut caller = Caller::connect(&host.data).await;
    caller.write("GET /about HTTP/1.1\r\nhost: site.example.com\r\nhost: other.example.com\r\n\r\n").await;
    assert_eq!(caller.reply().await, 400, "who is in front may have read the other one");
    assert_eq!(a.configure(json!({"triggers": {"site": null}})).await.status, 200);
    fetch(&host, "GET", "site.example.com", "/elsewhere", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn an_address_may_ask_for_a_key_or_for_none() {
    let host = TestHost::start().await;
    let triggers =
        json!({"open": {"http": {"path": "/open", "auth": "none"}}, "closed": {"http": {"path": "/closed"}}});
    let probe = host.deploy("probe", "guest-probe", json!({"auth": "key", "triggers": triggers})).await;
    probe.invoke("{\"do\":[]}").await.problem(401, "unauthorized");
    let call = async |path: &str| {
        let request = host.client.post(format!("{}{path}", host.data)).body("{\"do\":[]}");
        Reply::of(request.send().await.unwrap()).await
    };
    assert_eq!(call("/open").await.status, 200);
    call("/closed").await.problem(401, "unauthorized");
    let changed = json!({"auth": "none", "triggers": {"open": {"http": {"auth": "key"}}}});
    assert_eq!(probe.configure(changed).await.status, 200);
    call("/open").await.problem(401, "unauthorized");
    assert_eq!(call("/closed").await.status, 200);
}

#[tokio::test]
async fn web_pages_of_other_origins_may_call_where_they_are_named() {
    let host = TestHost::start().await;
    let cors = json!({
        "origins": ["https://app.example"], "headers": ["X-Trace"], "exposeHeaders": ["Dormouse-Request-Id"],
        "credentials": true, "maxAgeSeconds": 60,
    });
    let triggers = json!({
        "api": {"http": {"path": "/api", "methods": ["GET", "PUT"], "auth": "key", "cors": cors}},
        "all": {"http": {"path": "/all", "cors": {"origins": ["*"]}}},
        "none": {"http": {"path": "/none"}},
    });
    host.deploy("probe", "guest-probe", json!({"triggers": triggers})).await;
    let ask = async |path: &str, origin: &str| {
        let fields = [("origin", origin), ("access-control-request-method", "PUT")];
        fetch(&host, "OPTIONS", "localhost", path, &fields).await
    };
    let allowed = ask("/api", "https://app.example").await;
    assert_eq!(allowed.status, 204, "{allowed:?}");
    for (field, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "X-Trace"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
        ("vary", "Origin"),
    ] {
        assert_eq!(allowed.header(field), value, "{field}");
    }
    let refused = ask("/api", "https://evil.example").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (204, ""));
    let all = ask("/all", "https://evil.example").await;
    assert_eq!(all.header("access-control-allow-origin"), "*");
    assert_eq!(all.header("access-control-allow-methods"), "GET, HEAD, POST, PUT, PATCH, DELETE");
    // Replies can be read too, and so can errors.
    let unauthorized = fetch(&host, "GET", "localhost", "/api", &[("origin", "https://app.example")]).await;
    assert_eq!(unauthorized.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(unauthorized.header("access-control-expose-headers"), "Dormouse-Request-Id");
    unauthorized.problem(401, "unauthorized");
    // Without rules the function is asked, like by anybody.
    let asked = ask("/none", "https://app.example").await;
    assert_eq!(asked.header("access-control-allow-origin"), "");
    assert_ne!(asked.status, 204);
    let plain = fetch(&host, "GET", "localhost", "/all", &[]).await;
    assert_eq!(plain.header("access-control-allow-origin"), "*", "a cache may keep it for everybody");
    let vary = fetch(&host, "GET", "localhost", "/api", &[]).await;
    assert_eq!((vary.header("vary"), vary.header("access-control-allow-origin")), ("Origin", ""));
}

#[tokio::test]
async fn triggers_stand_in_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.wasm"), tests::text::Small::PLAIN.component()).unwrap();
    let manifest = r#"
        [functions.report]
        component = "small.wasm"
        async = { max-attempts = 5, on-failure = { function = "alarm" } }
        [functions.report.triggers.each-night]
        timer = { cron = "0 3 * * *", timezone = "Europe/Berlin", missed = "all", missed-max = 3 }
        [functions.report.triggers.site]
        http = { host = "report.example", path = "/*", methods = ["GET"], cors = { origins = ["*"] } }
    "#;
    let path = folder.path().join("dormouse.toml");
    std::fs::write(&path, manifest).unwrap();
    let host = TestHost::start().await;
    let deploy = async || {
        let mut command = dormouse();
        command.args(["deploy", "--admin", &host.admin]).current_dir(folder.path());
        let output = command.output().await.unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (ok, printed) = deploy().await;
    assert!(ok, "{printed}");
    let view = host.get("/v1/functions/report").await.json();
    assert_eq!(view["async"]["onFailure"]["function"], "alarm");
    assert_eq!(view["triggers"]["each-night"]["timer"]["missedMax"], 3);
    assert_eq!(triggers(&host, "report").await[1]["address"], "report.example/*");
    std::fs::write(&path, manifest.replace("missed-max", "missed-maxx")).unwrap();
    let (ok, printed) = deploy().await;
    assert!(!ok && printed.contains("missed-maxx"), "{printed}");
}

#[tokio::test]
async fn nobody_can_take_the_identifier_of_a_tick() {
    let host = TestHost::start().await;
    let small = tests::text::Small::PLAIN.component();
    host.put_code("clock", small, &json!({})).await;
    let request = host.function("clock").request("").header("dormouse-invocation-type", "async");
    let taken = request.header("dormouse-invocation-id", "job~2027-01-01T00:00:00Z").send().await.unwrap();
    Reply::of(taken).await.problem(400, "invalid-request");
}

#[tokio::test]
async fn timers_go_on_when_the_queue_can_be_written_again() {
    let host = TestHost::start().await;
    let each_second = json!({"triggers": {"t": {"timer": {"everyMs": 1000}}}});
    for name in ["one", "two"] {
        host.put_code(name, tests::text::Small::PLAIN.component(), &json!({})).await;
    }
    assert_eq!(host.function("one").configure(each_second.clone()).await.status, 200);
    succeeded(&host, "one", 1).await;
    // Somebody else writes the database, and does not end.
    let mut other = tokio::process::Command::new("python3");
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()";
    other.args(["-c", script]).arg(host.state_dir().join("queue.sqlite"));
    other.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut other = other.spawn().unwrap();
    let mut said = [0; 6];
    tokio::io::AsyncReadExt::read_exact(other.stdout.as_mut().unwrap(), &mut said).await.unwrap();
    assert_eq!(host.function("two").configure(each_second).await.status, 200);
    eventually("a write that fails", async || {
        let log = host.log();
        if log.contains("cannot be read or noted") { Ok(()) } else { Err(log) }
    })
    .await;
    other.kill().await.unwrap();
    succeeded(&host, "two", 1).await;
    succeeded(&host, "one", 3).await;
}
