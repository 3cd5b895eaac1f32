//! Function Compute's APIs, as its own published clients use them, and as somebody does who means no good.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::{Reply, TestFunction, TestHost, eventually};

const FROM_NPM: [&str; 4] = [
    "@alicloud/fc2@2.6.6",
    "@alicloud/fc20230330@4.7.6",
    "@alicloud/openapi-core@1.0.8",
    "@darabonba/typescript@1.0.5",
];
const FROM_PYPI: [&str; 3] =
    ["aliyun-fc2==2.5.2", "alibabacloud_fc20230330==4.8.3", "alibabacloud_fc_open20210406==2.0.12"];
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/fixtures/function-compute");
const SERVICE: &str = "shop";
/// A schedule that does not come while a test runs.
const DAILY: &str = "0 0 4 1 1 *";

/// Declares the same test for each published client.
macro_rules! over_clients {
    ($($test:ident),+ $(,)?) => {
        mod fc2_of_npm { over_clients!(in "@alicloud/fc2": $($test),+); }
        mod fc20230330_of_npm { over_clients!(in "@alicloud/fc20230330": $($test),+); }
        mod fc2_of_pypi { over_clients!(in "aliyun-fc2": $($test),+); }
        mod fc20210406_of_pypi { over_clients!(in "alibabacloud_fc_open20210406": $($test),+); }
        mod fc20230330_of_pypi { over_clients!(in "alibabacloud_fc20230330": $($test),+); }
    };
    (in $package:literal: $($test:ident),+) => {
        $(
            #[tokio::test]
            async fn $test() {
                super::$test($package).await;
            }
        )+
    };
}

over_clients!(
    a_function_lives_with_its_hooks_as_they_are_set,
    events_are_handled_at_once_and_later,
    versions_aliases_and_triggers_come_and_go,
    a_wrong_secret_and_an_unknown_key_are_told_apart,
);

/// A host that knows the probe.
async fn started() -> TestHost {
    let host = TestHost::start().await;
    host.has_compiled("guest-probe");
    host
}

/// An access key of the host that may do everything.
struct Key {
    id: String,
    secret: String,
}

impl Key {
    async fn of(host: &TestHost) -> Key {
        let body = json!({"functions": ["*"], "rights": ["manage"]}).to_string();
        let made = host.client.post(format!("{}/v1/keys", host.admin)).body(body).send().await.unwrap();
        let made = Reply::of(made).await;
        assert_eq!(made.status, 201, "{made:?}");
        let token = made.json()["token"].as_str().unwrap().to_owned();
        let (id, secret) = token.split_once('.').unwrap();
        Key { id: id.to_owned(), secret: secret.to_owned() }
    }
}

/// A program that drives a published client.
struct Client {
    package: &'static str,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Client {
    fn start(package: &'static str, host: &TestHost, key: &Key) -> Client {
        Client::with(package, host, (&key.id, &key.secret))
    }

    fn with(package: &'static str, host: &TestHost, key: (&str, &str)) -> Client {
        Client::with_endpoint(package, &host.admin, key)
    }

    fn with_endpoint(package: &'static str, url: &str, (id, secret): (&str, &str)) -> Client {
        static NODE: OnceLock<PathBuf> = OnceLock::new();
        let mut command = if package.starts_with('@') {
            let modules = NODE.get_or_init(|| tests::languages::node_modules_with(&FROM_NPM));
            let mut command = Command::new("node");
            command.env("NODE_PATH", modules).arg(format!("{FIXTURES}/client.js"));
            command
        } else {
            let mut command = Command::new(python());
            command.arg(format!("{FIXTURES}/client.py"));
            command
        };
        let endpoint = url.strip_prefix("http://").unwrap();
        command.args([package, endpoint, id, secret]).env("NO_PROXY", "127.0.0.1");
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = pipes.spawn().expect("the client starts");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Client { package, input, output: BufReader::new(output).lines(), _child: child }
    }

    fn has_services(&self) -> bool {
        !self.package.ends_with("fc20230330")
    }

    /// The name of a function on the host.
    fn on_host(&self, function: &str) -> String {
        if self.has_services() { format!("{SERVICE}.{function}") } else { function.to_owned() }
    }

    async fn said(&mut self, order: Value) -> Value {
        self.input.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let line = self.output.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("{} ended at {order}", self.package));
        serde_json::from_str(&line).unwrap()
    }

    /// What came of an operation that succeeds.
    async fn ok(&mut self, order: Value) -> Value {
        let said = self.said(order.clone()).await;
        assert!(said.get("ok").is_some(), "{order}: {said}");
        said["ok"].clone()
    }

    /// Code and status of an operation that fails.
    async fn fails(&mut self, order: Value) -> (String, u64) {
        let said = self.said(order.clone()).await;
        let code = said["error"].as_str().unwrap_or_else(|| panic!("{order}: {said}"));
        // One client gives its own name to errors.
        (code.to_owned(), said["status"].as_u64().unwrap_or_default())
    }

    /// Creates the service, if there are services, and a function with all hooks.
    async fn create(&mut self, function: &str) -> Value {
        if self.has_services() {
            self.said(json!(["create_service", SERVICE])).await;
        }
        let created = self.ok(json!(["create_function", SERVICE, self.fields(function), zip()])).await;
        created["body"].clone()
    }

    fn fields(&self, function: &str) -> Value {
        let mut fields = json!({
            "functionName": function, "runtime": "custom", "handler": "index.handler", "memorySize": 128, "timeout": 10,
            "instanceConcurrency": 1, "environmentVariables": {"COLOUR": "red"},
            "instanceLifecycleConfig": {
                "preFreeze": {"handler": "index.preFreeze", "timeout": 30}, "preStop": {"handler": "index.preStop", "timeout": 40},
            },
        });
        if self.has_services() {
            fields["initializer"] = json!("index.initializer");
            fields["initializationTimeout"] = json!(5);
        } else {
            fields["instanceLifecycleConfig"]["initializer"] = json!({"handler": "index.initializer", "timeout": 5});
        }
        fields
    }

    /// Calls a function with a script for the probe.
    async fn call(&mut self, function: &str, script: Value, fields: Value) -> Value {
        self.ok(json!(["invoke", SERVICE, function, event(script), fields])).await
    }
}

/// Python with the published clients.
pub(crate) fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| tests::languages::python_with(&FROM_PYPI).join("bin/python")).clone()
}

/// An event for the probe.
fn event(script: Value) -> String {
    json!({"do": script}).to_string()
}

/// The probe in a zip, in base64. Made by Python, whose zips are like those of deployment tools.
fn zip() -> &'static str {
    static ZIP: OnceLock<String> = OnceLock::new();
    ZIP.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("function.wasm");
        fs::write(&component, tests::component("guest-probe")).unwrap();
        STANDARD.encode(zip_of(&folder.path().join("code.zip"), &component))
    })
}

fn zip_of(zip: &Path, file: &Path) -> Vec<u8> {
    let mut command = std::process::Command::new("python3");
    let made = command.args(["-m", "zipfile", "-c"]).arg(zip).arg(file).status().unwrap();
    assert!(made.success());
    fs::read(zip).unwrap()
}

/// A field of an answer, whatever the case of its name.
fn field<'a>(answer: &'a Value, name: &str) -> &'a str {
    let fields = answer["fields"].as_object().unwrap();
    let found = fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    found.and_then(|(_, value)| value.as_str()).unwrap_or_default()
}

fn results(answer: &Value) -> Value {
    let body = answer["body"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    body["results"].clone()
}

/// How often each hook ran, by the lines that the probe writes.
async fn hooks(function: &TestFunction) -> [usize; 3] {
    let lines = function.lines().await;
    let count = |hook: &str| {
        let own = |line: &&Value| line["text"].as_str().is_some_and(|text| text.split(' ').next() == Some(hook));
        lines.iter().filter(|line| line["stream"] == "stdout").filter(own).count()
    };
    ["initializer", "pre-freeze", "pre-stop"].map(count)
}

async fn stop_all(host: &TestHost, function: &TestFunction) {
    for instance in function.instances().await {
        host.post(&format!("/v1/instances/{}/stop", instance["id"].as_str().unwrap())).await;
    }
    function.is_gone().await;
}

async fn a_function_lives_with_its_hooks_as_they_are_set(package: &'static str) {
    let host = started().await;
    let mut client = Client::start(package, &host, &Key::of(&host).await);
    let created = client.create("cart").await;
    assert_eq!(created["functionName"], "cart", "{created}");
    let function = host.function(&client.on_host("cart"));

    let read = client.ok(json!(["get_function", SERVICE, "cart"])).await["body"].clone();
    let lifecycle = &read["instanceLifecycleConfig"];
    assert_eq!(lifecycle["preFreeze"], json!({"handler": "index.preFreeze", "timeout": 30}), "{read}");
    assert_eq!(lifecycle["preStop"], json!({"handler": "index.preStop", "timeout": 40}));
    let initializer = if client.has_services() {
        json!({"handler": read["initializer"], "timeout": read["initializationTimeout"]})
    } else {
        lifecycle["initializer"].clone()
    };
    assert_eq!(initializer, json!({"handler": "index.initializer", "timeout": 5}));
    assert_eq!((&read["memorySize"], &read["timeout"]), (&json!(128), &json!(10)));
    assert_eq!(read["environmentVariables"], json!({"COLOUR": "red"}));
    assert!(!read["codeChecksum"].as_str().unwrap().is_empty());

    // The hooks run as often as they must: once, after each call, and at the end.
    for count in 1..=2 {
        let answer = client.call("cart", json!(["count"]), json!({})).await;
        assert_eq!(results(&answer), json!([count]));
        function.logs("pre-freeze", count).await;
    }
    function.reaches("parked").await;
    assert_eq!(hooks(&function).await, [1, 2, 0]);

    // What an update leaves out stays; new settings are for new instances, so the old one stops.
    let updated = client.ok(json!(["update_function", SERVICE, "cart", {"description": "carts", "timeout": 20}])).await;
    let lifecycle = &updated["body"]["instanceLifecycleConfig"];
    assert_eq!((&updated["body"]["timeout"], &lifecycle["preStop"]["timeout"]), (&json!(20), &json!(40)));
    function.logs("pre-stop", 1).await;
    assert_eq!(results(&client.call("cart", json!(["count"]), json!({})).await), json!([1]));
    function.logs("pre-freeze", 3).await;
    assert_eq!(hooks(&function).await, [2, 3, 1]);

    // An empty handler turns one hook off, and the others stay.
    let off = json!({"instanceLifecycleConfig": {"preFreeze": {"handler": "", "timeout": 30}}});
    client.ok(json!(["update_function", SERVICE, "cart", off])).await;
    let read = client.ok(json!(["get_function", SERVICE, "cart"])).await["body"].clone();
    assert_eq!(read["instanceLifecycleConfig"]["preFreeze"]["handler"], "", "{read}");
    function.logs("pre-stop", 2).await;
    client.call("cart", json!(["count"]), json!({})).await;
    function.reaches("parked").await;
    stop_all(&host, &function).await;
    assert_eq!(hooks(&function).await, [3, 3, 3]);

    // What happened is in the audit log under the key's name.
    let changes = host.get("/v1/audit").await.json()["entries"].to_string();
    assert!(changes.contains("dmk-") && changes.contains(&client.on_host("cart")), "{changes}");

    client.create("bill").await;
    let (mut names, mut token) = (Vec::new(), Value::Null);
    loop {
        let page = client.ok(json!(["list_functions", SERVICE, 1, token, ""])).await["body"].clone();
        names.extend(page["functions"].as_array().unwrap().iter().map(|one| one["functionName"].clone()));
        token = page["nextToken"].clone();
        if token.as_str().is_none_or(str::is_empty) {
            break;
        }
    }
    assert_eq!(names, ["bill", "cart"]);
    client.ok(json!(["delete_function", SERVICE, "bill"])).await;
    client.ok(json!(["delete_function", SERVICE, "cart"])).await;
    let (code, status) = client.fails(json!(["get_function", SERVICE, "cart"])).await;
    assert!(code.ends_with("FunctionNotFound") && status == 404, "{code} {status}");
    if client.has_services() {
        client.ok(json!(["delete_service", SERVICE])).await;
        let (code, _) = client.fails(json!(["delete_service", SERVICE])).await;
        assert!(code.ends_with("ServiceNotFound"), "{code}");
    }
    assert_eq!(host.get("/v1/functions").await.json(), json!({"functions": []}));
}

async fn events_are_handled_at_once_and_later(package: &'static str) {
    let host = started().await;
    let mut client = Client::start(package, &host, &Key::of(&host).await);
    client.create("cart").await;
    let function = host.function(&client.on_host("cart"));

    let answer =
        client.call("cart", json!([{"print": "hello there"}, "count"]), json!({"x-fc-log-type": "Tail"})).await;
    assert_eq!(answer["status"], 200);
    let request = field(&answer, "x-fc-request-id").to_owned();
    let tail = STANDARD.decode(field(&answer, "x-fc-log-result")).unwrap();
    let tail = String::from_utf8(tail).unwrap();
    for part in [
        format!("FC Invoke Start RequestId: {request}\n"),
        "hello there\n".to_owned(),
        format!("FC Invoke End RequestId: {request}\n\nDuration: "),
        "Billed Duration: ".to_owned(),
        "Memory Size: 128 MB, Max Memory Used: ".to_owned(),
    ] {
        assert!(tail.contains(&part), "{part:?} is not in {tail:?}");
    }
    let read = client.ok(json!(["get_function", SERVICE, "cart"])).await["body"].clone();
    assert_eq!(field(&answer, "x-fc-code-checksum"), read["codeChecksum"].as_str().unwrap());
    assert!(field(&answer, "x-fc-invocation-duration").parse::<u64>().is_ok(), "{answer}");
    assert!(field(&answer, "x-fc-max-memory-usage").parse::<f64>().is_ok_and(|megabytes| megabytes > 0.5), "{answer}");
    assert!(field(&answer, "x-fc-instance-id").starts_with("i-"));
    assert_eq!(field(&answer, "x-fc-error-type"), "");

    // Errors of the function are replies.
    let kind = |kind: &'static str| if package == "aliyun-fc2" { "raised" } else { kind };
    let failed = client.call("cart", json!([{"fail": "no such order"}]), json!({})).await;
    assert_eq!(
        (failed["status"].as_u64(), field(&failed, "x-fc-error-type")),
        (Some(200), kind("HandledInvocationError"))
    );
    assert!(failed["body"].to_string().contains("no such order"), "{failed}");
    let crashed = client.call("cart", json!(["trap"]), json!({})).await;
    assert_eq!(field(&crashed, "x-fc-error-type"), kind("UnhandledInvocationError"));
    assert!(crashed["body"].to_string().contains("Process exited unexpectedly"), "{crashed}");

    // What is handed over is on disk, runs, and can be stopped.
    client
        .ok(json!(["put_async_config", SERVICE, "cart", {"maxAsyncRetryAttempts": 0, "maxAsyncEventAgeInSeconds": 60}]))
        .await;
    let id = if client.has_services() { "x-fc-stateful-async-invocation-id" } else { "x-fc-async-task-id" };
    let later = json!({"x-fc-invocation-type": "Async", id: "task-1"});
    let taken = client.call("cart", json!([{"print": "in its own time"}]), later).await;
    assert_eq!((taken["status"].as_u64(), field(&taken, id)), (Some(202), "task-1"), "{taken}");
    function.logs("in its own time", 1).await;
    reaches(&mut client, "task-1", "Succeeded").await;
    let later = json!({"x-fc-invocation-type": "Async", id: "task-2"});
    client.call("cart", json!([{"sleep-ms": 5_000}]), later).await;
    reaches(&mut client, "task-2", "Running").await;
    client.ok(json!(["stop_invocation", SERVICE, "cart", "task-2"])).await;
    reaches(&mut client, "task-2", "Stopped").await;
    let (code, status) = client.fails(json!(["get_invocation", SERVICE, "cart", "task-3"])).await;
    assert!(code.ends_with("NotFound") && status == 404, "{code} {status}");

    // The bill is by duration, as Function Compute's users expect it, and can be priced as there.
    let windows = host.windows().await;
    assert!(!windows.is_empty() && windows.iter().all(|window| window["basis"] == "duration"), "{windows:?}");
    let own = client.on_host("cart");
    assert!(windows.iter().all(|window| window["function"] == own.as_str()), "{windows:?}");
    let mut usage = Command::new(env!("CARGO_BIN_EXE_host-under-test"));
    let output = usage.args(["usage", "--as", "fc", "--json", "--admin", &host.admin]).output().await.unwrap();
    let price: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let (line, cu) = (&price["functions"][0], price["cu"].as_f64().unwrap());
    assert_eq!((&line["function"], &line["invocations"]), (&json!(own), &json!(5)), "{price}");
    assert!(cu >= 1.0 && cu.fract() == 0.0 && (price["usd"].as_f64().unwrap() / cu - 0.000_02).abs() < 1e-9, "{price}");
}

async fn reaches(client: &mut Client, task: &str, state: &str) {
    let client = tokio::sync::Mutex::new(client);
    eventually(&format!("{task} is {state}"), async || {
        let found = client.lock().await.ok(json!(["get_invocation", SERVICE, "cart", task])).await;
        if found["body"]["status"] == state { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

async fn versions_aliases_and_triggers_come_and_go(package: &'static str) {
    let host = started().await;
    let mut client = Client::start(package, &host, &Key::of(&host).await);
    client.create("cart").await;
    let own = client.on_host("cart");
    let mut versions = Vec::new();
    for colour in ["red", "blue"] {
        let changed = json!({"environmentVariables": {"COLOUR": colour}});
        client.ok(json!(["update_function", SERVICE, "cart", changed])).await;
        let published = client.ok(json!(["publish", SERVICE, "cart", colour])).await;
        versions.push(published["body"]["versionId"].as_str().unwrap().to_owned());
    }
    assert_eq!(versions, ["1", "2"]);
    client.ok(json!(["update_function", SERVICE, "cart", {"environmentVariables": {"COLOUR": "green"}}])).await;
    client.ok(json!(["create_alias", SERVICE, "cart", "prod", "1", {"2": 1.0}])).await;
    let (code, status) = client.fails(json!(["create_alias", SERVICE, "cart", "prod", "1", {}])).await;
    assert!(code.ends_with("AliasAlreadyExists") && status == 409, "{code} {status}");
    for (qualifier, colour, version) in [
        (json!("1"), "red", "1"),
        (json!("2"), "blue", "2"),
        (json!("prod"), "blue", "2"),
        (json!(null), "green", "LATEST"),
    ] {
        let read = client.ok(json!(["get_function", SERVICE, "cart", qualifier])).await;
        if qualifier != "prod" {
            assert_eq!(read["body"]["environmentVariables"]["COLOUR"], colour, "{qualifier}");
        }
        let script = event(json!(["env", "context"]));
        let answer = client.ok(json!(["invoke", SERVICE, "cart", script, {}, qualifier])).await;
        let told = results(&answer);
        assert_eq!((&told[0]["COLOUR"], &told[1]["version"]), (&json!(colour), &json!(version)), "{told}");
        // The 2.0 APIs name what was asked for, the other one the version that it became.
        let (name, label) = if client.has_services() {
            ("x-fc-invocation-service-version", qualifier.as_str().unwrap_or("LATEST"))
        } else {
            ("x-fc-invocation-code-version", version)
        };
        assert_eq!(field(&answer, name), label);
    }
    let aliases = host.get(&format!("/v1/functions/{own}/aliases")).await.json();
    assert_eq!(aliases["aliases"][0]["weights"], json!({"2": 1.0}), "one sees the same by `/v1`: {aliases}");

    let made = client.ok(json!(["create_trigger", SERVICE, "cart", "yearly", DAILY])).await;
    assert!(made["body"]["triggerConfig"].to_string().contains(DAILY), "{made}");
    let (code, status) = client.fails(json!(["create_trigger", SERVICE, "cart", "yearly", DAILY])).await;
    assert!(code.ends_with("TriggerAlreadyExists") && status == 409, "{code} {status}");
    let triggers = host.get(&format!("/v1/functions/{own}/triggers")).await.json();
    assert_eq!(triggers["triggers"][0]["name"], "yearly", "{triggers}");

    let (code, status) = client.fails(json!(["delete_version", SERVICE, "cart", "1"])).await;
    assert!(code.ends_with("PreconditionFailed") && status == 412, "an alias names it: {code} {status}");
    client.ok(json!(["delete_trigger", SERVICE, "cart", "yearly"])).await;
    client.ok(json!(["delete_alias", SERVICE, "cart", "prod"])).await;
    client.ok(json!(["delete_version", SERVICE, "cart", "1"])).await;
    client.ok(json!(["delete_version", SERVICE, "cart", "2"])).await;
    let left = host.get(&format!("/v1/functions/{own}")).await.json();
    assert_eq!((&left["versions"], &left["aliases"]), (&json!(0), &json!(0)), "{left}");
    assert_eq!(left["triggers"], Value::Null);
}

async fn a_wrong_secret_and_an_unknown_key_are_told_apart(package: &'static str) {
    let host = started().await;
    let key = Key::of(&host).await;
    let mut wrong = Client::with(package, &host, (&key.id, "0123456789abcdef0123456789abcdef01234567"));
    let (code, status) = wrong.fails(json!(["get_function", SERVICE, "cart"])).await;
    assert!(code.ends_with("SignatureNotMatch") && status == 403, "{code} {status}");
    let mut unknown = Client::with(package, &host, ("dmk-0123456789abcdef", &key.secret));
    let (code, status) = unknown.fails(json!(["get_function", SERVICE, "cart"])).await;
    assert!(code.ends_with("InvalidAccessKeyID") && status == 403, "{code} {status}");
    let mut right = Client::start(package, &host, &key);
    let (code, status) = right.fails(json!(["get_function", SERVICE, "cart"])).await;
    assert!(code.ends_with("NotFound") && status == 404, "{code} {status}");
}

/// Sends a request without a signature, as a host without keys takes it from its own machine.
async fn send(host: &TestHost, method: &str, path: &str, body: impl Into<reqwest::Body>) -> Reply {
    let method = method.parse().unwrap();
    let request = host.client.request(method, format!("{}{path}", host.admin)).body(body);
    Reply::of(request.send().await.expect("the admin listener answers")).await
}

/// A reply that is a success.
async fn done(host: &TestHost, method: &str, path: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let reply = send(host, method, path, body).await;
    assert!(reply.status < 300, "{method} {path}: {reply:?}");
    assert!(!reply.header("x-fc-request-id").is_empty(), "{reply:?}");
    if reply.body.is_empty() { Value::Null } else { reply.json() }
}

/// The message of a reply that is an error, in the form that each client finds its own fields in.
fn fault(reply: &Reply, status: u16, code: &str) -> String {
    assert_eq!(reply.status, status, "{reply:?}");
    let body = reply.json();
    for name in ["ErrorCode", "errorCode", "Code"] {
        assert_eq!(body[name], code, "{reply:?}");
    }
    assert_eq!(body["RequestId"], reply.header("x-fc-request-id"), "{reply:?}");
    for name in ["ErrorMessage", "errorMessage", "Message"] {
        assert_eq!(body[name], body["Message"]);
    }
    body["Message"].as_str().unwrap().to_owned()
}

fn function(name: &str) -> Value {
    json!({"functionName": name, "runtime": "custom", "handler": "index.handler", "code": {"zipFile": zip()}})
}

const FUNCTIONS: &str = "/2016-08-15/services/s/functions";

/// A host that takes small components only, with a service.
async fn with_service() -> TestHost {
    let builder = TestHost::builder().flag("--component-bytes-max=8000000").flag("--uploads-memory-max-mb=64");
    let host = builder.start().await;
    done(&host, "POST", "/2016-08-15/services", json!({"serviceName": "s"})).await;
    host
}

/// What is said to somebody who creates a function with these fields beside the usual ones.
async fn refused(host: &TestHost, change: Value, code: &str) -> String {
    let mut body = json!({"functionName": "f", "runtime": "custom", "handler": "h", "code": {"zipFile": zip()}});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    fault(&send(host, "POST", FUNCTIONS, body.to_string()).await, 400, code)
}

#[tokio::test]
async fn fields_that_make_no_sense_are_named() {
    let host = with_service().await;
    for (change, part) in [
        (json!({"functionName": null}), "`functionName` is missing"),
        (json!({"functionName": 7}), "`functionName` is a number; it must be a string"),
        (json!({"functionName": "a b"}), "is not a function name"),
        (json!({"functionName": "x".repeat(129)}), "is not a function name"),
        (json!({"functionName": "a.b"}), "is not a function name"),
        (json!({"runtime": null}), "`runtime` is missing"),
        (json!({"memorySize": "128"}), "`memorySize` is a string"),
        (json!({"memorySize": 8192}), "at most 4096 MB"),
        (json!({"timeout": 0}), "`timeout` is 0"),
        (json!({"nasConfig": {"mountPoints": [{"mountDir": "/x"}]}}), "`nasConfig`"),
        (json!({"environmentVariables": {"A": 1}}), "`environmentVariables.A`"),
        (json!({"instanceLifecycleConfig": {"preStop": 3}}), "`preStop` is a number"),
    ] {
        let said = refused(&host, change.clone(), "InvalidArgument").await;
        assert!(said.contains(part), "{change}: {said}");
    }
    let deep = r#"{"serviceName": "d", "vpcConfig": "#.to_owned() + &r#"{"a":"#.repeat(100) + "1" + &"}".repeat(101);
    fault(&send(&host, "POST", "/2016-08-15/services", deep).await, 400, "InvalidArgument");
    for (body, part) in [("{", "is no JSON"), ("[]", "it must be an object"), ("{}", "`functionName` is missing")] {
        let said = fault(&send(&host, "POST", FUNCTIONS, body).await, 400, "InvalidArgument");
        assert!(said.contains(part), "{body}: {said}");
    }
    done(&host, "POST", FUNCTIONS, function("f")).await;
    let triggers = format!("{FUNCTIONS}/f/triggers");
    for (path, body, part) in [
        (&*triggers, json!({"triggerName": "t", "triggerType": "carrier-pigeon"}), "triggerType"),
        (&triggers, json!({"triggerName": "t", "triggerType": "timer", "triggerConfig": "{"}), "no JSON"),
        (
            &triggers,
            json!({"triggerName": "t", "triggerType": "timer", "triggerConfig": {"cronExpression": "soon"}}),
            "no cron expression",
        ),
        ("/2016-08-15/services/s/aliases", json!({"aliasName": "1", "versionId": "1"}), "alias"),
        ("/2016-08-15/services/s/aliases", json!({"aliasName": "a", "versionId": "x"}), "is not a version"),
    ] {
        let said = fault(&send(&host, "POST", path, body.to_string()).await, 400, "InvalidArgument");
        assert!(said.contains(part), "{body}: {said}");
    }
    for (field, value) in
        [("x-fc-invocation-type", "Maybe"), ("x-fc-log-type", "All"), ("x-fc-stateful-async-invocation-id", "1 2")]
    {
        let mut request = host.client.post(format!("{}{FUNCTIONS}/f/invocations", host.admin)).header(field, value);
        if field != "x-fc-invocation-type" {
            request = request.header("x-fc-invocation-type", "Async");
        }
        let said = fault(&Reply::of(request.send().await.unwrap()).await, 400, "InvalidArgument");
        assert!(said.to_lowercase().contains(field), "{said}");
    }
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

#[tokio::test]
async fn what_is_kept_for_clients_has_bounds() {
    let host = with_service().await;
    done(&host, "POST", FUNCTIONS, function("f")).await;
    let (long, triggers) = ("x".repeat(2000), format!("{FUNCTIONS}/f/triggers"));
    let tags: serde_json::Map<String, Value> = (0..100).map(|tag| (tag.to_string(), json!(""))).collect();
    for (method, path, body) in [
        ("PUT", "/2016-08-15/services/s", json!({"description": long})),
        ("PUT", "/2016-08-15/services/s", json!({"role": "x".repeat(2 << 19)})),
        ("POST", "/2016-08-15/services/s/versions", json!({"description": long})),
        ("POST", "/2016-08-15/tag", json!({"resourceArn": "acs:fc:local:0:services/s", "tags": tags})),
        ("POST", &triggers, json!({"triggerName": "t", "triggerType": "oss", "description": "x".repeat(70_000)})),
        ("POST", &triggers, json!({"triggerName": "../t", "triggerType": "oss"})),
        ("PUT", "/2016-08-15/services/s/functions/f", json!({"role": "x".repeat(70_000)})),
    ] {
        let said = fault(&send(&host, method, path, body.to_string()).await, 400, "InvalidArgument");
        assert!(said.contains("at most") || said.contains("must be 1 to 128"), "{path}: {said}");
    }
    for number in 0..100 {
        done(&host, "POST", &triggers, json!({"triggerName": format!("t{number}"), "triggerType": "oss"})).await;
    }
    let more = json!({"triggerName": "more", "triggerType": "oss"}).to_string();
    fault(&send(&host, "POST", &triggers, more).await, 400, "LimitExceededError");
}

/// A zip in base64 with one file, as Python makes it.
fn archive(name: &str, bytes: &[u8]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bytes"), bytes).unwrap();
    let script = "import sys,zipfile\nz=zipfile.ZipFile('zip','w',zipfile.ZIP_DEFLATED)\n\
                  z.writestr(sys.argv[1],open('bytes','rb').read())\nz.close()";
    let mut python = std::process::Command::new("python3");
    assert!(python.args(["-c", script, name]).current_dir(folder.path()).status().unwrap().success());
    json!({"zipFile": STANDARD.encode(fs::read(folder.path().join("zip")).unwrap())})
}

#[tokio::test]
async fn code_that_is_none_is_named_and_bombs_are_not_unpacked() {
    let host = with_service().await;
    for (code, part) in [
        (json!(null), "`code` is missing"),
        (json!({}), "`code` must hold `zipFile`"),
        (json!({"zipFile": "!"}), "is no base64"),
        (json!({"zipFile": "emlw"}), "is no zip that can be read"),
        (archive("index.py", b"def handler(): pass"), "holds no WebAssembly component"),
        (archive("../f.wasm", b"\0asm"), "outside of its folder"),
        (archive("f.wasm", b"\0asm\x01\0\0\0"), "a core module"),
        (json!({"ossBucketName": "b", "ossObjectName": "o"}), "`code.ossObjectName` is 'o'"),
        (json!({"zipFile": zip(), "checksum": "1"}), "`code.checksum` is 1"),
    ] {
        let said = refused(&host, json!({"code": code}), "InvalidArgument").await;
        assert!(said.contains(part), "{part}: {said}");
    }
    let before = host.memory_kib("VmHWM");
    refused(&host, json!({"code": archive("a.wasm", &vec![0; 256 << 20])}), "EntityTooLarge").await;
    let grown = host.memory_kib("VmHWM") - before;
    assert!(grown < 64 << 10, "it grew by {grown} KiB");
    let large = send(&host, "POST", FUNCTIONS, vec![b' '; 20 << 20]).await;
    fault(&large, 400, "EntityTooLarge");
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_answered_in_the_form_of_function_compute() {
    let host = with_service().await;
    for (method, path, status, code) in [
        ("GET", "/2022-01-01/functions", 400, "PathNotSupported"),
        ("GET", "/2016-08-15/nothing", 400, "PathNotSupported"),
        ("PATCH", "/2016-08-15/services/s", 400, "PathNotSupported"),
        ("GET", "/2016-08-15/services/%FF", 400, "InvalidArgument"),
        ("GET", "/2016-08-15/services/t", 404, "ServiceNotFound"),
        ("GET", "/2016-08-15/services/s/functions/f", 404, "FunctionNotFound"),
        ("GET", "/2016-08-15/services/s.1/functions/f", 404, "FunctionNotFound"),
        ("GET", "/2023-03-30/functions/f", 404, "FunctionNotFound"),
        ("GET", "/2023-03-30/functions/s.f", 400, "InvalidArgument"),
        ("GET", "/2016-08-15/services?limit=0", 400, "InvalidArgument"),
        ("GET", "/2016-08-15/services?limit=101", 400, "InvalidArgument"),
        ("GET", "/2016-08-15/services?nextToken=%21", 400, "InvalidArgument"),
        ("DELETE", "/2016-08-15/services/s/versions/1", 404, "VersionNotFound"),
        ("GET", "/2016-08-15/services/s/aliases/prod", 404, "AliasNotFound"),
        ("POST", "/2016-08-15/custom-domains", 400, "InvalidArgument"),
        ("POST", "/2016-08-15/services/s/functions/f/invocations", 404, "FunctionNotFound"),
        ("PUT", "/0/fc-upload-1-2-3", 403, "AccessDenied"),
        ("PUT", "/0/fc-upload-fffffffff-2-00", 403, "AccessDenied"),
        ("GET", "/fc-code/s.f/1?expires=9999999999&signature=00", 403, "AccessDenied"),
    ] {
        fault(&send(&host, method, path, "").await, status, code);
    }
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

/// `GET /2023-03-30/functions`, signed with ACS3 by openssl, with this nonce and date.
async fn signed(host: &TestHost, key: &Key, (nonce, date): (&str, &str), body: &str) -> Reply {
    let authority = host.admin.strip_prefix("http://").unwrap();
    let script = r#"hash() { printf %s "$1" | openssl dgst -sha256 -r | cut -c1-64; }
        names='host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce'
        request=$(printf 'GET\n/2023-03-30/functions\n\nhost:%s\nx-acs-content-sha256:%s\nx-acs-date:%s\nx-acs-signature-nonce:%s\n\n%s\n%s' \
            "$1" "$(hash '')" "$2" "$3" "$names" "$(hash '')")
        text=$(printf 'ACS3-HMAC-SHA256\n%s' "$(hash "$request")")
        printf '%s\n%s' "$(hash '')" "$(printf %s "$text" | openssl dgst -sha256 -hmac "$4" -r | cut -c1-64)""#;
    let output =
        Command::new("sh").args(["-c", script, "sh", authority, date, nonce, &key.secret]).output().await.unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let (hash, signature) = output.split_once('\n').unwrap();
    let names = "host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce";
    let id = &key.id;
    let request = host
        .client
        .get(format!("{}/2023-03-30/functions", host.admin))
        .header("x-acs-content-sha256", hash)
        .header("x-acs-date", date)
        .header("x-acs-signature-nonce", nonce)
        .header(
            "authorization",
            format!("ACS3-HMAC-SHA256 Credential={id},SignedHeaders={names},Signature={signature}"),
        )
        .body(body.to_owned());
    Reply::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_signed_request_is_taken_once_and_in_time_and_with_its_own_body() {
    let host = started().await;
    let key = Key::of(&host).await;
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let first = signed(&host, &key, ("n-1", &now), "").await;
    assert_eq!((first.status, first.json()), (200, json!({"functions": []})), "{first:?}");
    let again = fault(&signed(&host, &key, ("n-1", &now), "").await, 403, "AccessDenied");
    assert!(again.contains("nonce was used before"), "{again}");
    fault(&signed(&host, &key, ("n-2", &now), "{}").await, 403, "SignatureNotMatch");
    let old = fault(&signed(&host, &key, ("n-3", "2026-01-01T00:00:00Z"), "").await, 403, "AccessDenied");
    assert!(old.contains("more than 15 minutes off"), "{old}");
    let forged = Key { id: key.id.clone(), secret: "x".to_owned() };
    fault(&signed(&host, &forged, ("n-4", &now), "").await, 403, "SignatureNotMatch");
    // What one host has taken, the next one does not take either, which has forgotten it.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let host = host.kill_and_restart().await;
    let again = signed(&host, &key, ("n-1", &now), "").await;
    assert_eq!(again.status, 403, "{again:?}");
    let revoked = host.client.delete(format!("{}/v1/keys/{}", host.admin, key.id)).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    Key::of(&host).await;
    fault(&signed(&host, &key, ("n-5", &now), "").await, 403, "InvalidAccessKeyID");
}

#[tokio::test]
async fn a_key_for_a_service_reaches_no_other() {
    let host = started().await;
    for service in ["shop", "bank"] {
        done(&host, "POST", "/2016-08-15/services", json!({"serviceName": service})).await;
        done(&host, "POST", &format!("/2016-08-15/services/{service}/functions"), function("f")).await;
    }
    let body = json!({"functions": ["shop.*"], "rights": ["manage"]}).to_string();
    let made = host.client.post(format!("{}/v1/keys", host.admin)).body(body).send().await.unwrap();
    let token = Reply::of(made).await.json()["token"].as_str().unwrap().to_owned();
    let by_key = async |method: &str, path: &str, body: Value| {
        let request = host.client.request(method.parse().unwrap(), format!("{}/2016-08-15{path}", host.admin));
        let request = request.bearer_auth(&token).body(body.to_string());
        Reply::of(request.send().await.unwrap()).await
    };
    let services = by_key("GET", "/services", json!({})).await.json();
    let names: Vec<&Value> = services["services"].as_array().unwrap().iter().map(|one| &one["serviceName"]).collect();
    assert_eq!(names, ["shop"]);
    assert_eq!(by_key("GET", "/services/shop/functions/f", json!({})).await.status, 200);
    let changes = async || host.get("/v1/audit").await.json()["entries"].as_array().unwrap().len();
    let before = changes().await;
    for (method, path, body) in [
        ("GET", "/services/bank", json!({})),
        ("DELETE", "/services/bank", json!({})),
        ("POST", "/services", json!({"serviceName": "third"})),
        ("POST", "/services/bank/functions", function("g")),
        ("PUT", "/services/bank/functions/f", json!({"timeout": 5})),
        ("POST", "/services/bank/functions/f/invocations", json!(["count"])),
        ("POST", "/services/bank/versions", json!({})),
        ("POST", "/tag", json!({"resourceArn": "acs:fc:local:0:services/bank", "tags": {"a": "b"}})),
        ("GET", "/tag?resourceArn=acs:fc:local:0:services/bank/functions/f", json!({})),
    ] {
        fault(&by_key(method, path, body).await, 403, "AccessDenied");
    }
    assert_eq!(changes().await, before, "what is not allowed is not noted");
    // Its functions have their own addresses, and nobody else's.
    let http = json!({"triggerName": "http", "triggerType": "http", "triggerConfig": {"authType": "anonymous"}});
    assert_eq!(by_key("POST", "/services/shop/functions/f/triggers", http).await.status, 200);
    for path in ["/2016-08-15/proxy/bank/f/*", "/2016-08-15/proxy/shop/f", "/2023-03-30/proxy/f/*"] {
        let others = json!({"triggers": {"other": {"http": {"path": path}}}});
        let said = host.function("shop.f").configure(others).await.problem(422, "settings-refused");
        assert!(said.contains("`/2016-08-15/proxy/shop/f/*`"), "{said}");
    }
    // Nor does it run another service's functions by way of its own.
    let told = json!({"destinationConfig": {"onSuccess": {"destination": "acs:fc:local:0:services/bank/functions/f"}}});
    fault(&by_key("PUT", "/services/shop/functions/f/async-invoke-config", told).await, 403, "AccessDenied");
}

#[tokio::test]
async fn services_and_what_is_kept_for_clients_survive_a_kill() {
    let host = started().await;
    let service = json!({"serviceName": "shop", "description": "a shop", "vpcConfig": {"vpcId": "vpc-1"}});
    done(&host, "POST", "/2021-04-06/services", service).await;
    let mut cart = function("cart");
    cart["vpcConfig"] = json!({"vpcId": "vpc-1"});
    cart["caPort"] = json!(9001);
    let made = done(&host, "POST", "/2021-04-06/services/shop/functions", cart).await;
    assert!(made["warnings"].to_string().contains("`vpcConfig` is kept and has no effect"), "{made}");
    assert!(host.log().contains("`vpcConfig` is kept and has no effect"), "{}", host.log());
    done(&host, "POST", "/2021-04-06/services/shop/functions", function("bill")).await;
    done(&host, "POST", "/2021-04-06/services/shop/versions", json!({"description": "one"})).await;
    // `bill` does not change, so that its version has another number than the service's.
    done(&host, "PUT", "/2021-04-06/services/shop/functions/cart", json!({"environmentVariables": {"COLOUR": "blue"}}))
        .await;
    done(&host, "POST", "/2021-04-06/services/shop/versions", json!({})).await;
    let alias = json!({"aliasName": "prod", "versionId": "1", "additionalVersionWeight": {"2": 1}});
    done(&host, "POST", "/2021-04-06/services/shop/aliases", alias).await;
    let oss = json!({"triggerName": "files", "triggerType": "oss", "triggerConfig": "{\"events\": []}"});
    done(&host, "POST", "/2021-04-06/services/shop/functions/cart/triggers", oss).await;
    let host = host.kill_and_restart().await;

    let functions = done(&host, "GET", "/2016-08-15/services/shop.2/functions", Value::Null).await;
    let colours: Vec<&Value> =
        functions["functions"].as_array().unwrap().iter().map(|one| &one["environmentVariables"]["COLOUR"]).collect();
    assert_eq!(colours, [&Value::Null, &json!("blue")], "`bill` and `cart`: {functions}");
    let old = done(&host, "GET", "/2021-04-06/services/shop/functions/cart?qualifier=1", Value::Null).await;
    assert_eq!(
        (&old["environmentVariables"], &old["caPort"], &old["vpcConfig"]["vpcId"]),
        (&json!({}), &json!(9001), &json!("vpc-1"))
    );
    let colour =
        send(&host, "POST", "/2016-08-15/services/shop.prod/functions/cart/invocations", event(json!(["env"]))).await;
    let label = colour.header("x-fc-invocation-service-version");
    assert_eq!((&colour.results()[0]["COLOUR"], label), (&json!("blue"), "prod"));
    let bill =
        send(&host, "POST", "/2016-08-15/services/shop.2/functions/bill/invocations", event(json!(["context"]))).await;
    assert_eq!(bill.results()[0]["version"], "1", "the version of the function itself");
    let service = done(&host, "GET", "/2016-08-15/services/shop", Value::Null).await;
    assert_eq!((&service["description"], &service["vpcConfig"]["vpcId"]), (&json!("a shop"), &json!("vpc-1")));
    let trigger = done(&host, "GET", "/2016-08-15/services/shop/functions/cart/triggers/files", Value::Null).await;
    assert_eq!((&trigger["triggerType"], &trigger["triggerConfig"]), (&json!("oss"), &json!({"events": []})));
    for (path, code) in [
        ("/2016-08-15/services/shop", "ServiceNotEmpty"),
        ("/2016-08-15/services/shop/versions/1", "PreconditionFailed"),
    ] {
        fault(&send(&host, "DELETE", path, "").await, 412, code);
    }

    // A function that `/v1` deletes and makes anew has nothing of the one before.
    assert_eq!(host.function("shop.cart").delete().await.status, 204);
    let component = tests::component("guest-probe");
    assert_eq!(host.put_code("shop.cart", component, &json!({})).await.status, 201);
    let triggers = done(&host, "GET", "/2016-08-15/services/shop/functions/cart/triggers", Value::Null).await;
    assert_eq!(triggers, json!({"triggers": []}));
    let anew = done(&host, "GET", "/2016-08-15/services/shop/functions/cart", Value::Null).await;
    assert_eq!((&anew["runtime"], anew.get("vpcConfig")), (&json!("custom"), None), "{anew}");
}

#[tokio::test]
async fn a_client_that_read_something_older_changes_nothing() {
    let host = started().await;
    let made = send(&host, "POST", "/2023-03-30/functions", function("f").to_string()).await;
    let etag = made.header("etag").to_owned();
    let update = async |etag: &str, seconds: u64| {
        let request = host.client.put(format!("{}/2023-03-30/functions/f", host.admin)).header("if-match", etag);
        Reply::of(request.body(json!({"timeout": seconds}).to_string()).send().await.unwrap()).await
    };
    let first = update(&etag, 5).await;
    assert_eq!((first.status, &first.json()["timeout"]), (200, &json!(5)));
    assert_ne!(first.header("etag"), etag);
    fault(&update(&etag, 6).await, 412, "PreconditionFailed");
    let request = host.client.delete(format!("{}/2023-03-30/functions/f", host.admin)).header("if-match", &etag);
    fault(&Reply::of(request.send().await.unwrap()).await, 412, "PreconditionFailed");
    assert_eq!(update(first.header("etag"), 7).await.status, 200);
    fault(&send(&host, "POST", "/2023-03-30/functions", function("f").to_string()).await, 409, "FunctionAlreadyExists");
}

#[tokio::test]
async fn callers_reach_functions_at_the_data_listener_and_nothing_else() {
    let host = started().await;
    done(&host, "POST", "/2023-03-30/functions", function("f")).await;
    let at_data = async |method: &str, path: &str, token: Option<&str>| {
        let request =
            host.client.request(method.parse().unwrap(), format!("{}{path}", host.data)).body(event(json!(["count"])));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        Reply::of(request.send().await.unwrap()).await
    };
    let called = at_data("POST", "/2023-03-30/functions/f/invocations", None).await;
    assert_eq!(called.results(), json!([1]));
    fault(&at_data("GET", "/2023-03-30/functions/f", None).await, 403, "AccessDenied");
    fault(&at_data("DELETE", "/2023-03-30/functions/f", None).await, 403, "AccessDenied");
    assert_eq!(at_data("GET", "/2022-01-01/x", None).await.status, 404, "it may be a function's");
    // Lines of another's call are not for whoever knows its identifier.
    let named = |id: &str, script: Value| {
        let url = format!("{}/2023-03-30/functions/f/invocations", host.data);
        let request = host.client.post(url).header("x-request-id", id).header("x-fc-log-type", "Tail");
        request.body(event(script))
    };
    named("well-known", json!([{"print": "secret"}])).send().await.unwrap();
    let other = Reply::of(named("well-known", json!([])).send().await.unwrap()).await;
    let tail = STANDARD.decode(other.header("x-fc-log-result")).unwrap();
    assert!(!String::from_utf8_lossy(&tail).contains("secret"), "{}", String::from_utf8_lossy(&tail));
    let key = Key::of(&host).await;
    assert_eq!(host.function("f").configure(json!({"auth": "key"})).await.status, 200);
    fault(&at_data("POST", "/2023-03-30/functions/f/invocations", None).await, 403, "AccessDenied");
    let token = format!("{}.{}", key.id, key.secret);
    fault(&at_data("GET", "/2023-03-30/functions/f", Some(&token)).await, 403, "AccessDenied");
    assert_eq!(at_data("POST", "/2023-03-30/functions/f/invocations", Some(&token)).await.results(), json!([2]));
    // The same, signed by a published client.
    let data = host.data.clone();
    let mut endpoint = Client::with_endpoint("alibabacloud_fc20230330", &data, (&key.id, &key.secret));
    let answer = endpoint.call("f", json!(["count"]), json!({})).await;
    assert_eq!(results(&answer), json!([3]));
}

#[tokio::test]
async fn a_function_of_http_has_an_address_of_its_service() {
    let host = started().await;
    let component = tests::component("guest-http-02");
    let code = json!({"zipFile": STANDARD.encode(&component)});
    done(&host, "POST", "/2016-08-15/services", json!({"serviceName": "site"})).await;
    let fields = json!({"functionName": "web", "runtime": "custom", "handler": "x", "code": code});
    done(&host, "POST", "/2016-08-15/services/site/functions", fields).await;
    let triggers = "/2016-08-15/services/site/functions/web/triggers";
    let config = json!({"triggerName": "http", "triggerType": "http", "triggerConfig": {"authType": "anonymous", "methods": ["GET", "POST"]}});
    let made = done(&host, "POST", triggers, config).await;
    let url = made["urlInternet"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("{}/2016-08-15/proxy/site/web/", host.data));
    let get = async |url: &str| Reply::of(host.client.get(url).send().await.unwrap()).await;
    let open = host.client.post(format!("{url}about")).send().await.unwrap();
    let open = Reply::of(open).await;
    assert_eq!(open.status, 201, "{open:?}");
    assert!(open.text().contains("\"/about\"") && !open.text().contains("proxy"), "it sees its own path: {open:?}");
    let wrong = host.client.delete(format!("{url}about")).send().await.unwrap();
    assert_eq!(wrong.status(), 405);

    done(
        &host,
        "PUT",
        &format!("{triggers}/http"),
        json!({"triggerConfig": {"authType": "function", "methods": ["GET", "POST"]}}),
    )
    .await;
    let refused = get(&format!("{url}about")).await;
    assert_eq!((refused.status, refused.header("x-fc-error-type")), (401, "FcCommonError"));
    let key = Key::of(&host).await;
    let date = httpdate();
    let path = "/2016-08-15/proxy/site/web/about/x?b=3&a=1%202";
    let text = format!("POST\n\n\n{date}\n/2016-08-15/proxy/site/web/about/x\na=1 2\nb=3");
    let script = r#"printf %s "$1" | openssl dgst -sha256 -hmac "$2" -binary | base64 -w0"#;
    let output = Command::new("sh").args(["-c", script, "sh", &text, &key.secret]).output().await.unwrap();
    let signature = String::from_utf8(output.stdout).unwrap();
    let request = host.client.post(format!("{}{path}", host.data)).header("date", &date);
    let request = request.header("authorization", format!("FC {}:{signature}", key.id));
    let signed = Reply::of(request.send().await.unwrap()).await;
    assert_eq!(signed.status, 201, "{signed:?}");
    assert!(!signed.text().to_lowercase().contains("authorization"), "the function sees no signature: {signed:?}");
    // The hash of the body in signatures of the other kind could be checked too late only.
    let other = "ACS3-HMAC-SHA256 Credential=x,SignedHeaders=x-acs-date;x-acs-signature-nonce;x-acs-content-sha256,Signature=00";
    let other = host.client.get(format!("{url}about")).header("authorization", other).header("x-acs-date", &date);
    let other = other.header("x-acs-signature-nonce", "n").header("x-acs-content-sha256", "00").send().await.unwrap();
    assert!(Reply::of(other).await.problem(401, "unauthorized").contains("`FC id:signature` only"));
    let forged = host.client.post(format!("{}{path}&b=2", host.data)).header("date", &date);
    let forged = forged.header("authorization", format!("FC {}:{signature}", key.id)).send().await.unwrap();
    assert_eq!(forged.status(), 401);
}

#[tokio::test]
async fn what_fails_at_an_http_trigger_or_a_domain_is_told_as_function_compute_does() {
    let host = started().await;
    done(&host, "POST", "/2023-03-30/functions", function("probe")).await;
    let config = json!({"authType": "anonymous", "methods": ["POST"]});
    let trigger = json!({"triggerName": "http", "triggerType": "http", "triggerConfig": config});
    done(&host, "POST", "/2023-03-30/functions/probe/triggers", trigger).await;
    let routes = json!([{"path": "/*", "functionName": "probe", "methods": ["POST"]}]);
    let domain = json!({"domainName": "probe.example.com", "protocol": "HTTP", "routeConfig": {"routes": routes}});
    done(&host, "POST", "/2023-03-30/custom-domains", domain).await;
    // The probe is scripted by the body of what it gets.
    let url = format!("{}/v1/functions/probe", host.admin);
    let set = host.client.patch(url).json(&json!({"httpEvent": "body", "timeoutMs": 1000})).send().await.unwrap();
    assert_eq!(set.status(), 200);

    let (trigger, domain, own) = ("/2023-03-30/proxy/probe/", "/", "/fn/probe/");
    let (fails, hangs) = (json!([{"fail": "no"}]), json!(["spin-forever"]));
    let unhandled = "UnhandledInvocationError";
    for (path, script, status, code, kind) in [
        (trigger, &fails, 502, "function-failed", unhandled),
        (trigger, &json!(["trap"]), 502, "function-crashed", unhandled),
        (trigger, &hangs, 502, "function-timed-out", unhandled),
        (domain, &fails, 502, "function-failed", unhandled),
        (own, &fails, 500, "function-failed", ""),
    ] {
        let body = json!({"do": script}).to_string();
        let request = host.client.post(format!("{}{path}", host.data)).header("host", "probe.example.com").body(body);
        let answer = Reply::of(request.send().await.unwrap()).await;
        answer.problem(status, code);
        assert_eq!(answer.header("x-fc-error-type"), kind, "{path}: {answer:?}");
    }
    // Their callers hand requests over with their own fields.
    for path in [trigger, domain] {
        let request = host.client.post(format!("{}{path}", host.data)).header("host", "probe.example.com");
        let request =
            request.header("x-fc-invocation-type", "Async").header("x-fc-stateful-async-invocation-id", "mine");
        let answer = Reply::of(request.body(r#"{"do": []}"#).send().await.unwrap()).await;
        assert_eq!((answer.status, &answer.json()["invocationId"]), (202, &json!("mine")), "{path}: {answer:?}");
    }
    for (path, value, status, said) in [
        (trigger, "later", 400, "`x-fc-invocation-type`"),
        ("/2023-03-30/proxy/nobody/", "Async", 404, "there is nothing here"),
    ] {
        let request = host.client.post(format!("{}{path}", host.data)).header("x-fc-invocation-type", value);
        let answer = Reply::of(request.send().await.unwrap()).await;
        assert!(answer.status == status && answer.text().contains(said), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_reply_has_the_end_of_its_log_and_names_the_version_that_ran() {
    let host = started().await;
    done(&host, "POST", "/2023-03-30/functions", function("f")).await;
    let invoke = async |query: &str, script: Value| {
        let url = format!("{}/2023-03-30/functions/f/invocations{query}", host.admin);
        let request = host.client.post(url).header("x-fc-log-type", "Tail").body(event(script));
        Reply::of(request.send().await.unwrap()).await
    };
    let long = invoke("", json!([{"print": format!("first {}", "x".repeat(9000))}, {"print": "last"}])).await;
    let tail = String::from_utf8(STANDARD.decode(long.header("x-fc-log-result")).unwrap()).unwrap();
    assert_eq!(tail.len(), 4096);
    assert!(tail.contains("xxx\nlast\nFC Invoke End RequestId: ") && !tail.contains("first"), "{tail}");
    // What ended it stands there, as the stack of an error does at Function Compute.
    let crashed = invoke("", json!(["trap"])).await;
    let tail = String::from_utf8(STANDARD.decode(crashed.header("x-fc-log-result")).unwrap()).unwrap();
    assert!(tail.contains("unreachable"), "{tail}");

    done(&host, "POST", "/2023-03-30/functions/f/versions", json!({})).await;
    done(&host, "PUT", "/2023-03-30/functions/f", json!({"timeout": 7})).await;
    done(&host, "POST", "/2023-03-30/functions/f/versions", json!({})).await;
    let half = json!({"aliasName": "half", "versionId": "1", "additionalVersionWeight": {"2": 0.5}});
    done(&host, "POST", "/2023-03-30/functions/f/aliases", half).await;
    for _ in 0..16 {
        let reply = invoke("?qualifier=half", json!(["context"])).await;
        assert_eq!(reply.results()[0]["version"], reply.header("x-fc-invocation-code-version"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_service_keeps_what_its_other_versions_need_and_is_not_deleted_with_functions() {
    let host = TestHost::builder().flag("--aliases-max=1").start().await;
    host.has_compiled("guest-probe");
    for service in ["s", "empty"] {
        done(&host, "POST", "/2016-08-15/services", json!({"serviceName": service})).await;
    }
    for name in ["a", "b"] {
        done(&host, "POST", FUNCTIONS, function(name)).await;
    }
    fault(&send(&host, "DELETE", "/2016-08-15/services/s", "").await, 412, "ServiceNotEmpty");
    done(&host, "DELETE", "/2016-08-15/services/empty", Value::Null).await;
    let publish = async || done(&host, "POST", "/2016-08-15/services/s/versions", json!({})).await["versionId"].clone();
    assert_eq!(publish().await, "1");
    done(&host, "PUT", &format!("{FUNCTIONS}/b"), json!({"timeout": 7})).await;
    assert_eq!(publish().await, "2");
    // Both versions have the same one of `a`.
    done(&host, "DELETE", "/2016-08-15/services/s/versions/1", Value::Null).await;
    let called = send(&host, "POST", "/2016-08-15/services/s.2/functions/a/invocations", event(json!([]))).await;
    assert_eq!(called.status, 200, "{called:?}");
    // `b` has as many aliases as it may, so `a` gets none either.
    let alias = host.client.put(format!("{}/v1/functions/s.b/aliases/own", host.admin)).json(&json!({"version": "2"}));
    assert_eq!(alias.send().await.unwrap().status(), 201);
    let prod = json!({"aliasName": "prod", "versionId": "2"}).to_string();
    fault(&send(&host, "POST", "/2016-08-15/services/s/aliases", prod).await, 400, "LimitExceededError");
    assert_eq!(host.get("/v1/functions/s.a/aliases").await.json()["aliases"], json!([]));
}

#[tokio::test]
async fn a_key_that_may_read_changes_nothing() {
    let host = started().await;
    done(&host, "POST", "/2023-03-30/functions", function("f")).await;
    let body = json!({"functions": ["*"], "rights": ["read"]}).to_string();
    let made = host.client.post(format!("{}/v1/keys", host.admin)).body(body).send().await.unwrap();
    let token = Reply::of(made).await.json()["token"].as_str().unwrap().to_owned();
    for (method, path, status) in [
        ("GET", "/2023-03-30/functions/f", 200),
        ("GET", "/2023-03-30/regions", 200),
        ("PUT", "/2023-03-30/functions/f", 403),
        ("POST", "/2023-03-30/functions/f/versions", 403),
        ("DELETE", "/2023-03-30/functions/f", 403),
        ("GET", "/2016-08-15/tempBucketToken", 403),
    ] {
        let request = host.client.request(method.parse().unwrap(), format!("{}{path}", host.admin));
        let reply = Reply::of(request.bearer_auth(&token).body("{}").send().await.unwrap()).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
    }
}

/// The time as HTTP writes it, by the program that everybody has.
fn httpdate() -> String {
    let made =
        std::process::Command::new("date").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C").output();
    String::from_utf8(made.unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn code_is_fetched_from_a_signed_address_and_uploaded_to_one() {
    let host = TestHost::builder().flag("--fc-uploads-max-mb=1").start().await;
    let zip = STANDARD.decode(zip()).unwrap();
    let token = done(&host, "GET", "/2016-08-15/tempBucketToken", Value::Null).await;
    let object = format!("0/{}", token["objectName"].as_str().unwrap());
    // The host that deployment tools write is that of an object store.
    let put = host.client.put(format!("{}/{object}", host.admin)).header("host", "fc-code.oss-local.example");
    let put = Reply::of(put.body(zip.clone()).send().await.unwrap()).await;
    assert!(put.status == 200 && !put.header("etag").is_empty(), "{put:?}");
    let mut fields = function("f");
    fields["code"] = json!({"ossBucketName": token["ossBucket"], "ossObjectName": object});
    let made = done(&host, "POST", "/2023-03-30/functions", fields).await;
    let direct = done(&host, "POST", "/2023-03-30/functions", function("g")).await;
    assert_eq!(made["codeChecksum"], direct["codeChecksum"]);
    let full = send(&host, "PUT", &format!("/{object}"), vec![0; 2 << 20]).await;
    assert!(fault(&full, 503, "ResourceThrottled").contains("fc-uploads-max-mb"));

    let code = done(&host, "GET", "/2023-03-30/functions/f/code", Value::Null).await;
    let url = code["url"].as_str().unwrap();
    let fetched = Reply::of(host.client.get(url).send().await.unwrap()).await;
    assert_eq!((fetched.status, fetched.header("content-type")), (200, "application/zip"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("code.zip"), &fetched.body).unwrap();
    let mut unzip = std::process::Command::new("python3");
    assert!(
        unzip.args(["-m", "zipfile", "-e", "code.zip", "."]).current_dir(folder.path()).status().unwrap().success()
    );
    assert_eq!(fs::read(folder.path().join("function.wasm")).unwrap(), tests::component("guest-probe"));
    let other = url.replace("/fc-code/f/", "/fc-code/g/");
    fault(&Reply::of(host.client.get(other).send().await.unwrap()).await, 403, "AccessDenied");
}

#[tokio::test]
async fn numbers_of_instances_tags_and_lists_are_as_clients_expect_them() {
    let host = started().await;
    done(&host, "POST", "/2023-03-30/functions", function("f")).await;
    let settings = async || host.get("/v1/functions/f").await.json();
    done(&host, "PUT", "/2023-03-30/functions/f/provision-config?qualifier=LATEST", json!({"target": 2})).await;
    assert_eq!(settings().await["minInstances"], 2);
    let read = done(&host, "GET", "/2023-03-30/functions/f/provision-config?qualifier=LATEST", Value::Null).await;
    assert_eq!((&read["target"], &read["currentError"]), (&json!(2), &json!("")));
    done(&host, "PUT", "/2023-03-30/functions/f/concurrency", json!({"reservedConcurrency": 7})).await;
    assert_eq!(settings().await["maxInstances"], 7);
    done(&host, "DELETE", "/2023-03-30/functions/f/concurrency", Value::Null).await;
    assert_eq!(settings().await["maxInstances"], 100);
    done(&host, "POST", "/2023-03-30/functions/f/versions", json!({})).await;
    let kept = done(&host, "PUT", "/2023-03-30/functions/f/provision-config?qualifier=1", json!({"target": 1})).await;
    assert!(kept["warnings"].to_string().contains("never change"), "{kept}");
    let all = done(&host, "GET", "/2023-03-30/provision-configs", Value::Null).await;
    assert_eq!(all["provisionConfigs"].as_array().map(Vec::len), Some(2), "{all}");
    let none = done(&host, "GET", "/2023-03-30/functions/f/scaling-config?qualifier=LATEST", Value::Null).await;
    assert_eq!(none["minInstances"], 0);
    for path in ["vpc-bindings", "async-tasks", "sessions", "aliases", "triggers"] {
        let list = done(&host, "GET", &format!("/2023-03-30/functions/f/{path}"), Value::Null).await;
        assert!(list.as_object().unwrap().values().all(|list| list == &json!([])), "{path}: {list}");
    }
    let tags = json!({"ResourceType": "function", "ResourceId": ["acs:fc:local:0:functions/f"], "Tag": [{"Key": "team", "Value": "a"}]});
    done(&host, "POST", "/2023-03-30/tags-v2", tags).await;
    assert_eq!(settings().await["tags"], json!({"team": "a"}));
    let listed =
        done(&host, "GET", "/2023-03-30/tags-v2?ResourceType=function&ResourceId=%5B%22f%22%5D", Value::Null).await;
    assert_eq!(listed["TagResources"][0]["TagValue"], "a", "{listed}");
    done(&host, "DELETE", "/2023-03-30/tags-v2?ResourceId=%5B%22f%22%5D&TagKey=%5B%22team%22%5D", Value::Null).await;
    assert_eq!(settings().await["tags"], json!({}));

    done(&host, "PUT", "/2023-03-30/functions/f/invoke/disable", json!({"reason": "holidays"})).await;
    let refused = send(&host, "POST", "/2023-03-30/functions/f/invocations", event(json!([]))).await;
    assert!(fault(&refused, 403, "AccessDenied").contains("holidays"));
    done(&host, "PUT", "/2023-03-30/functions/f/invoke/enable", json!({})).await;
    assert_eq!(send(&host, "POST", "/2023-03-30/functions/f/invocations", event(json!([]))).await.status, 200);
}

#[tokio::test]
async fn an_alias_of_a_service_is_one_of_each_of_its_functions_or_of_none() {
    let host = started().await;
    done(&host, "POST", "/2016-08-15/services", json!({"serviceName": "s", "internetAccess": false})).await;
    for name in ["a", "b"] {
        done(&host, "POST", "/2016-08-15/services/s/functions", function(name)).await;
    }
    let hosts =
        async |name: &str| host.get(&format!("/v1/functions/s.{name}")).await.json()["allowedOutboundHosts"].clone();
    assert_eq!(hosts("a").await, json!([]), "the service says so");
    done(&host, "PUT", "/2016-08-15/services/s", json!({"internetAccess": true})).await;
    assert_eq!((hosts("a").await, hosts("b").await), (json!(["*"]), json!(["*"])));
    let publish = async || done(&host, "POST", "/2016-08-15/services/s/versions", json!({})).await["versionId"].clone();
    assert_eq!((publish().await, publish().await), (json!("1"), json!("1")), "nothing has changed");
    done(&host, "POST", "/2016-08-15/services/s/aliases", json!({"aliasName": "prod", "versionId": "1"})).await;

    // `b` is made anew, so that it has nothing of version 1; the alias still is one of `a`.
    done(&host, "DELETE", "/2016-08-15/services/s/functions/b", Value::Null).await;
    done(&host, "POST", "/2016-08-15/services/s/functions", function("b")).await;
    done(&host, "PUT", "/2016-08-15/services/s/aliases/prod", json!({"description": "for all"})).await;
    assert_eq!(publish().await, "2");
    let too_much = json!({"versionId": "1", "additionalVersionWeight": {"2": 1.5}});
    fault(
        &send(&host, "PUT", "/2016-08-15/services/s/aliases/prod", too_much.to_string()).await,
        400,
        "InvalidArgument",
    );
    let own = json!({"versionId": "2", "additionalVersionWeight": {"2": 0.5}});
    fault(&send(&host, "PUT", "/2016-08-15/services/s/aliases/prod", own.to_string()).await, 400, "InvalidArgument");
    let missing = json!({"versionId": "3"});
    fault(
        &send(&host, "PUT", "/2016-08-15/services/s/aliases/prod", missing.to_string()).await,
        404,
        "VersionNotFound",
    );
    let aliases =
        async |name: &str| host.get(&format!("/v1/functions/s.{name}/aliases")).await.json()["aliases"].clone();
    assert_eq!(
        (&aliases("a").await[0]["version"], aliases("b").await),
        (&json!("1"), json!([])),
        "nothing was changed"
    );
    done(&host, "PUT", "/2016-08-15/services/s/aliases/prod", json!({"versionId": "2"})).await;
    assert_eq!(aliases("b").await[0]["alias"], "prod");
    done(&host, "DELETE", "/2016-08-15/services/s/aliases/prod", Value::Null).await;
    assert_eq!((aliases("a").await, aliases("b").await), (json!([]), json!([])));
}
